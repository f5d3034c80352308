"""Image sizes: as (height, width), and which of them a Swin tiles without padding."""

from collections.abc import Iterator, Sequence

from ssl_swin.errors import UserError

Size = tuple[int, int]
Window = int | Size  # tokens; (height, width) where a non-square map is smaller than the window


def check_sizes(size: Size, patch_size_px: int, window_size: int, *, num_stages: int) -> None:
    """Refuses an input size that the stages cannot tile without padding.

    Every map must halve evenly at each merging, and be a multiple of the window where it is larger
    than one. timm would pad silently, which is no longer the published model.

    Raises:
        UserError: Naming the nearest sizes that fit.
    """
    if patch_size_px < 1 or window_size < 1 or min(size) < 1:
        raise UserError(
            "image, patch and window must be at least 1: "
            f"got {size} px, {patch_size_px} px and {window_size} tokens"
        )
    for side_px in size:
        if not _fits(side_px, patch_size_px, window_size, num_stages):
            fitting = _nearest_fitting(side_px, patch_size_px, window_size, num_stages)
            raise UserError(
                f"an image side of {side_px} px does not divide into patches of {patch_size_px} "
                f"px, windows of {window_size} tokens and {num_stages} stages; "
                f"sides that do: {', '.join(map(str, fitting))} px"
            )


def stage_window_sizes(
    size: Size, patch_size_px: int, window_size: int, *, num_stages: int
) -> tuple[Window, ...]:
    """Returns the window that each stage really uses: on no side larger than its map."""
    grid = [side_px // patch_size_px for side_px in size]
    windows = [[min(window_size, side >> stage) for side in grid] for stage in range(num_stages)]
    return tuple(high if high == wide else (high, wide) for high, wide in windows)


def window_for_size(
    size: Size,
    *,
    trained_size: Size,
    trained_window: int,
    patch_size_px: int,
    num_stages: int,
) -> int:
    """Choose the window of a Swin for another image size: scaled with the image, else the old one.

    The recipe goes from 192 px and a window of 6 to 224 px and 7.

    Args:
        size: (height, width) that the encoder shall take, in pixels.
        trained_size: (height, width) that it takes now.
        trained_window: Window that it has now, in tokens.
        patch_size_px: Side of a patch.
        num_stages: Number of stages.

    Raises:
        UserError: If neither window tiles the maps of that size, naming sizes that would do.
    """

    def windows_to_try(size: Size) -> Iterator[int]:
        pairs = zip(size, trained_size, strict=True)
        scaled = [divmod(trained_window * new, old) for new, old in pairs]
        yield from sorted(whole for whole, rest in scaled if whole and not rest)
        yield trained_window

    def fitting_window(size: Size) -> int | None:
        for window in windows_to_try(size):
            if all(_fits(side_px, patch_size_px, window, num_stages) for side_px in size):
                return window
        return None

    if (window := fitting_window(size)) is not None:
        return window
    step = patch_size_px * 2 ** (num_stages - 1)
    nearest = sorted(range(step, 3 * max(size), step), key=lambda side: abs(side - max(size)))
    fitting = [side for side in nearest if fitting_window((side, side)) is not None][:4]
    raise UserError(
        f"no window suits an image of {size[0]} x {size[1]} px, the encoder's own of "
        f"{trained_window} tokens at {trained_size[0]} x {trained_size[1]} px neither as it is nor "
        f"scaled: set window_size, or take a square of {', '.join(map(str, sorted(fitting)))} px"
    )


def _fits(side_px: int, patch_size_px: int, window_size: int, num_stages: int) -> bool:
    grid, rest = divmod(side_px, patch_size_px)
    if rest or grid < 1 or grid % 2 ** (num_stages - 1):
        return False
    maps = [grid >> stage for stage in range(num_stages)]
    return all(side <= window_size or side % window_size == 0 for side in maps)


def _nearest_fitting(
    side_px: int, patch_size_px: int, window_size: int, num_stages: int, count: int = 4
) -> list[int]:
    step = patch_size_px * 2 ** (num_stages - 1)
    candidates = [
        side
        for side in range(step, 2 * side_px + step * window_size * 2, step)
        if _fits(side, patch_size_px, window_size, num_stages)
    ]
    return sorted(sorted(candidates, key=lambda side: abs(side - side_px))[:count])


def as_size(img_size_px: int | Sequence[int]) -> Size:
    """Returns (height, width) of a side or of a pair.

    Raises:
        UserError: If it is neither.
    """
    if isinstance(img_size_px, int):
        return img_size_px, img_size_px
    if len(img_size_px) != 2:
        raise UserError(f"img_size_px must be a side or (height, width), got {list(img_size_px)}")
    return img_size_px[0], img_size_px[1]

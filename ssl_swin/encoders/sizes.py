"""Image sizes: as (height, width), and which of them a Swin tiles without padding."""

from collections.abc import Sequence

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
    """Gives the window that each stage really uses: on no side larger than its map."""
    grid = [side_px // patch_size_px for side_px in size]
    windows = [[min(window_size, side >> stage) for side in grid] for stage in range(num_stages)]
    return tuple(high if high == wide else (high, wide) for high, wide in windows)


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
    """Gives (height, width) of a side or of a pair.

    Raises:
        UserError: If it is neither.
    """
    if isinstance(img_size_px, int):
        return img_size_px, img_size_px
    if len(img_size_px) != 2:
        raise UserError(f"img_size_px must be a side or (height, width), got {list(img_size_px)}")
    return img_size_px[0], img_size_px[1]

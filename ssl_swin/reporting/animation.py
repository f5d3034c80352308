"""The pictures of a training one after the other, as one animated file."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from ssl_swin.files import write_atomically
from ssl_swin.reporting.drawing import FAINT, PAPER, font, write

MAX_FRAMES = 40
MAX_FRAME_PX = (640, 1280)  # width, height
MAX_BYTES = 8_000_000
QUALITIES = (75, 50, 25)  # of WebP, tried one after the other; then frames of half the sides
LABEL_PX = 20
FRAME_MS, LAST_FRAME_MS = 200, 2000


def spread_over(items: Sequence[int], count: int) -> list[int]:
    """Choose at most `count` items evenly, the first and the last among them; of one, the last."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def write_animation(path: Path, pictures: Mapping[int, Path]) -> None:
    """Write an animated WebP, each frame labelled with its step; nothing if there is no frame.

    Pictures that cannot be read are left out. All frames have the size of the last one.

    Args:
        path: File to write.
        pictures: Image files by step.

    Raises:
        UserError: If the file cannot be written.
    """
    steps = spread_over(sorted(pictures), MAX_FRAMES)
    read = {step: picture for step in steps if (picture := _read(pictures[step]))}
    if not read:
        return
    size = ImageOps.contain(read[max(read)], _shrinking_only(read[max(read)].size)).size
    most = max(read)
    frames = [_frame(read[step], size, f"step {step:,} of {most:,}") for step in sorted(read)]
    write_atomically(path, _encoded(frames))


def film_bytes(picture: Image.Image, number: int) -> int:
    """Return about how large a film of so many pictures like this one is.

    Args:
        picture: One of them.
        number: How many there will be.
    """
    size = ImageOps.contain(picture, _shrinking_only(picture.size)).size
    one = len(_encoded([_frame(picture, size, "")]))
    return min(MAX_BYTES, one * min(number, MAX_FRAMES))


def _read(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except (OSError, SyntaxError, UnidentifiedImageError):  # Pillow raises each for damaged files
        return None


def _shrinking_only(size: tuple[int, int]) -> tuple[int, int]:
    return min(size[0], MAX_FRAME_PX[0]), min(size[1], MAX_FRAME_PX[1])


def _frame(picture: Image.Image, size: tuple[int, int], label: str) -> Image.Image:
    frame = Image.new("RGB", (size[0], size[1] + LABEL_PX), PAPER)
    shown = picture if picture.size == size else ImageOps.pad(picture, size, color=PAPER)
    frame.paste(shown, (0, LABEL_PX))
    write(ImageDraw.Draw(frame), (4, LABEL_PX / 2), label, font(14))
    ImageDraw.Draw(frame).line((0, LABEL_PX - 1, size[0], LABEL_PX - 1), FAINT)
    return frame


def _encoded(frames: Sequence[Image.Image]) -> bytes:
    """Encode frames in at most `MAX_BYTES`."""
    while True:
        for quality in QUALITIES:
            file = io.BytesIO()
            durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
            first, *others = frames
            first.save(
                file, "webp", save_all=True, append_images=others, duration=durations, loop=0,
                quality=quality, method=2,
            )  # fmt: skip
            if file.tell() <= MAX_BYTES:
                return file.getvalue()
        frames = [ImageOps.scale(frame, 0.5) for frame in frames]

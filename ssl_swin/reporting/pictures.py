"""Pictures inside a page."""

import base64
import io
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

QUALITY = 80  # of WebP


class Picture(NamedTuple):
    """A picture file and what it shows."""

    caption: str
    base64: str
    format: Literal["png", "webp"] = "png"


def picture_of(path: Path, caption: str) -> Picture:
    """Return a picture as it is.

    Args:
        path: A PNG file.
        caption: What it shows.
    """
    return Picture(caption, base64.b64encode(path.read_bytes()).decode())


def photographs_of(path: Path, caption: str) -> Picture:
    """Return a picture of photographs in a fraction of its bytes, or as it is if it is damaged.

    Args:
        path: A PNG file.
        caption: What it shows.
    """
    try:
        with Image.open(path) as picture:
            return Picture(caption, base64.b64encode(as_webp(picture)).decode(), "webp")
    except (OSError, SyntaxError, ValueError):  # Pillow raises each for damaged files
        return picture_of(path, caption)


def as_webp(picture: Image.Image) -> bytes:
    """Return the file that a page holds of a picture of photographs."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, "webp", quality=QUALITY)
    return file.getvalue()

"""Encoded images: what one is, what a source of them offers, which names mean what."""

import hashlib
import os
import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

IMAGE_EXTENSIONS = (
    "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "gif", "npy", "npz",
)  # fmt: skip
SPLIT_NAMES = {  # what people call a split, and what we call it
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_BEGINNINGS = {
    "jpg": rb"\xff\xd8",
    "png": rb"\x89PNG\r\n\x1a\n",
    "webp": rb"RIFF....WEBP",
    "tif": rb"II[*+]\0|MM\0[*+]",  # 43, "+", is BigTIFF
    "npy": rb"\x93NUMPY",
    "npz": rb"PK\x03\x04",
    "bmp": rb"BM",
    "gif": rb"GIF8[79]a",
    "ppm": rb"P[1-6]\s",
}
_CONTENT = re.compile(
    b"|".join(b"(?P<%b>%b)" % (kind.encode(), start) for kind, start in _BEGINNINGS.items()),
    re.DOTALL,
)


class ImageRecord(NamedTuple):
    """One image as it lies on disk, still encoded."""

    data: bytes
    extension: str  # lower case, no dot
    label: int | None  # an index into the source's classes
    name: str  # unique in its source, and the same wherever the source lies


class Source(Protocol):
    """Images by number: read-only, and picklable because worker processes receive a copy."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label; empty when the source is unlabelled."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when the list of images does."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int) -> ImageRecord:
        """Reads image `index` in [0, len)."""


def extension_of(name: str) -> str:
    """Gives what follows the last dot of a file name, in lower case."""
    return os.path.splitext(name)[1][1:].lower()


def extension_of_content(data: bytes) -> str:
    """Tells the kind of an image file by its first bytes, whatever it is called.

    Returns:
        jpg, png, webp, tif, npy, npz, bmp, gif or ppm; "" for anything else.
    """
    found = _CONTENT.match(data)
    return (found.lastgroup or "") if found else ""


def fingerprint(names: Iterable[str], content: bytes = b"") -> str:
    """Hashes names and a listing to 16 hex digits."""
    header = b"\0".join(os.fsencode(name) for name in names)
    return hashlib.sha256(header + b"\0\0" + content).hexdigest()[:16]

"""Encoded images: what one is, what a source of them offers, which names mean what (L0)."""

import hashlib
import os
from collections.abc import Iterable
from typing import NamedTuple, Protocol

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "gif")
SPLIT_NAMES = {  # what people call a split, and what we call it
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


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


def fingerprint(names: Iterable[str], content: bytes = b"") -> str:
    """Hashes names and a listing to 16 hex digits."""
    header = b"\0".join(os.fsencode(name) for name in names)
    return hashlib.sha256(header + b"\0\0" + content).hexdigest()[:16]

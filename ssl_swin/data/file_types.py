"""File types: the extension of a name, and the type that a file's first bytes show."""

import os
import re

IMAGE_EXTENSIONS = (
    "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "gif", "npy", "npz",
)  # fmt: skip
_SIGNATURES = {
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
    b"|".join(b"(?P<%b>%b)" % (name.encode(), start) for name, start in _SIGNATURES.items()),
    re.DOTALL,
)


def extension_of(name: str) -> str:
    """Return what follows the last dot of a file name, in lower case."""
    return os.path.splitext(name)[1][1:].lower()


def extension_of_content(data: bytes) -> str:
    """Return the type of an image file by its first bytes, whatever its name is.

    Args:
        data: The contents of the file, or their beginning.

    Returns:
        jpg, png, webp, tif, npy, npz, bmp, gif or ppm; "" for anything else.
    """
    found = _CONTENT.match(data)
    return (found.lastgroup or "") if found else ""

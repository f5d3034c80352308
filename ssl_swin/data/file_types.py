"""File types: the extension of a name, and the type that a file's first bytes show."""

import os
import re

IMAGE_EXTENSIONS = (
    "jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "ppm", "gif", "npy", "npz",
    "jpe", "jfif", "jif", "mpo", "apng", "dib", "pgm", "pbm", "pnm", "pfm", "tga",
    "avif", "heic", "heif", "hif", "jxl", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx",
    "qoi", "sgi", "pcx", "ras", "dds", "psd", "fits", "fit", "xbm",
)  # fmt: skip
ARRAY_EXTENSIONS = ("npy", "npz")
_FTYP = rb"\0\0..ftyp"  # the first box of ISO media files
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
    "pfm": rb"P[Ff]\s",
    "avif": _FTYP + rb"(?:avi[fs]|mif1....(?:....){0,4}avif)",
    "heic": _FTYP + rb"(?:hei[cxms]|hev[cx]|mif1|msf1)",
    "jp2": rb"\0\0\0\x0cjP  \r\n\x87\n",
    "j2k": rb"\xff\x4f\xff\x51",
    "jxl": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    "qoi": rb"qoif",
    "psd": rb"8BPS",
    "dds": rb"DDS ",
    "fits": rb"SIMPLE  =",
    "sgi": rb"\x01\xda[\0\1][\1\2]",
    "pcx": rb"\x0a[\0-\5]\x01[\1\2\4\x08]",
    "ras": rb"\x59\xa6\x6a\x95",
    "xbm": rb"\s*#define[ \t]+\w*width\s",
    # The least certain come last.
    "dib": rb"\x28\0\0\0",
    "tga": rb".(?:\0[\x02\x03\x0a\x0b]|\x01[\x01\x09]).{13}[\x08\x0f\x10\x18\x20]",
}
_CONTENT = re.compile(
    b"|".join(b"(?P<%b>%b)" % (name.encode(), start) for name, start in _SIGNATURES.items()),
    re.DOTALL,
)
_CONTAINERS = {  # what is no image, and how it is to be unpacked
    "ZIP archive": (rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", "unzip"),
    "7z archive": (rb"7z\xbc\xaf\x27\x1c", "7z x"),
    "RAR archive": (rb"Rar!\x1a\x07", "unrar x"),
    "gzip file": (rb"\x1f\x8b", "gunzip -k"),
    "bzip2 file": (rb"BZh[1-9]", "bunzip2 -k"),
    "xz file": (rb"\xfd7zXZ\0", "unxz -k"),
    "zstd file": (rb"\x28\xb5\x2f\xfd", "unzstd"),
    "compress file": (rb"\x1f\x9d", "uncompress -k"),
    "lzip file": (rb"LZIP", "lzip -dk"),
    "lz4 file": (rb"\x04\x22\x4d\x18", "unlz4"),
}


def extension_of(name: str) -> str:
    """Return what follows the last dot of a file name, in lower case."""
    head, dot, extension = name.rpartition(".")
    if dot and head and head[-1] not in "./" and "/" not in extension:  # three times as fast
        return extension.lower()
    return os.path.splitext(name)[1][1:].lower()


def an_image_in(folder: str | os.PathLike[str]) -> str | None:
    """Return the path of some image below a folder, by the names of files; None without any.

    Args:
        folder: One that exists; folders in it whose names begin with a dot are passed over.
    """
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = [name for name in files if extension_of(name) in IMAGE_EXTENSIONS]
        if images:
            return os.path.relpath(os.path.join(place, min(images)), folder)
    return None


def extension_of_content(data: bytes) -> str:
    """Return the type of an image file by its first bytes, whatever its name is.

    Args:
        data: The contents of the file, or their beginning.

    Returns:
        One of `IMAGE_EXTENSIONS`, such as jpg, png or tif; "" for anything else.
    """
    found = _CONTENT.match(data)
    return (found.lastgroup or "") if found else ""


def container_of_content(data: bytes) -> tuple[str, str] | None:
    """Return which archive or compressed file this is, and the command that unpacks it.

    Args:
        data: The contents of the file, or their beginning.

    Returns:
        Such as ("ZIP archive", "unzip"); None for anything else.
    """
    return next(
        (
            (title, command)
            for title, (start, command) in _CONTAINERS.items()
            if re.match(start, data, re.DOTALL)
        ),
        None,
    )

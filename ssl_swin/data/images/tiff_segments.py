"""How much the strips and tiles of a TIFF unpack to, where the decoder itself does not look."""

import importlib.util
import lzma
import math
import zlib
from collections.abc import Callable
from typing import Any

from tifffile import COMPRESSION

from ssl_swin.data.images.pixel_values import Unsuitable

# Without imagecodecs, tifffile unpacks these in full before it looks at their size.
_UNPACKERS: dict[int, Callable[[], Any]] = {
    COMPRESSION.ADOBE_DEFLATE: zlib.decompressobj,
    COMPRESSION.DEFLATE: zlib.decompressobj,
    COMPRESSION.LZMA: lzma.LZMADecompressor,
}


def check_segments(page: Any, data: bytes, *, is_bounded: bool | None = None) -> None:
    """Refuse a page of which a strip or tile unpacks to more than its share of the image.

    Args:
        page: A page of tifffile.
        data: The contents of the file.
        is_bounded: Whether tifffile's decoders stop at the size of the image; None finds out.

    Raises:
        Unsuitable: If one does.
    """
    if is_bounded is None:
        is_bounded = importlib.util.find_spec("imagecodecs") is not None
    unpacker = _UNPACKERS.get(page.compression)
    if is_bounded or unpacker is None or page.dtype is None:
        return
    most_bytes = math.prod(page.chunks) * page.dtype.itemsize
    for offset, num_bytes in zip(page.dataoffsets, page.databytecounts, strict=False):
        packed = memoryview(data)[offset : offset + num_bytes]
        if num_bytes and len(unpacker().decompress(packed, most_bytes + 1)) > most_bytes:
            raise Unsuitable(
                f"is damaged: a part of {num_bytes} bytes unpacks to more than the {most_bytes} "
                "that it has place for"
            )

"""Reads a `metrics.csv` from its end, for what stands last, whatever the length of the file."""

import io
import os
from collections.abc import Iterator
from typing import BinaryIO

_BLOCK_BYTES = 1 << 12


def lines_from_end(file: BinaryIO, start: int) -> Iterator[bytes]:
    """Yield the lines of a file from the last to the first, each with its end.

    Args:
        file: Open for reading.
        start: Offset of the first line to be read, in bytes.
    """
    at, size, rest = file.seek(0, os.SEEK_END), _BLOCK_BYTES, b""
    while at > start:
        before = max(start, at - size)
        file.seek(before)
        rest = file.read(at - before) + rest
        at, size = before, size * 2
        first, *others = io.BytesIO(rest).readlines()
        if others:
            yield from reversed(others)
            rest, size = first, _BLOCK_BYTES
    if rest:
        yield rest

"""A tar read from front to back, compressed or not, in memory that does not depend on its content.

`tarfile` unpacks each block that it reads as a whole, and a few kilobytes may unpack to gigabytes.
"""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"
_MOST_MAGIC = 6  # bytes


class _Begun:
    """A stream whose first bytes were read already."""

    def __init__(self, start: bytes, stream: Any) -> None:
        self._start = start
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; none at the end."""
        if not self._start:
            return bytes(self._stream.read(size))
        taken = self._start if size < 0 else self._start[:size]
        self._start = self._start[len(taken) :]
        return taken + bytes(self._stream.read()) if size < 0 else taken


@contextmanager
def open_tar(stream: Any) -> Iterator[tarfile.TarFile]:
    """Open a tar that can be read only once, whose members are to be read in order.

    Args:
        stream: Has `read`; of a tar, or one compressed by gzip, bzip2 or xz.

    Raises:
        tarfile.ReadError: Also while it is being read, if what it holds is damaged.
    """
    try:
        with tarfile.open(fileobj=_unpacked(stream), mode="r|") as archive:
            yield archive
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError) as error:
        raise tarfile.ReadError(str(error)) from error


def members_of(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of a tar without keeping them."""
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # else it keeps all
        if member.isreg():
            yield member


def _unpacked(stream: Any) -> BinaryIO:
    start = b""
    while len(start) < _MOST_MAGIC and (more := stream.read(_MOST_MAGIC - len(start))):
        start += more
    begun = cast(Any, _Begun(start, stream))
    if start.startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=begun))
    if start.startswith(_BZIP2):
        return cast(BinaryIO, _Bzip2(begun))
    return cast(BinaryIO, lzma.LZMAFile(begun)) if start.startswith(_XZ) else cast(BinaryIO, begun)


class _Bzip2(bz2.BZ2File):
    """A file whose damage is an error of its own kind, not one of the system's."""

    def read(self, size: int | None = -1) -> bytes:
        """See `BZ2File.read`."""
        try:
            return super().read(-1 if size is None else size)
        except OSError as error:
            raise EOFError(str(error)) from error

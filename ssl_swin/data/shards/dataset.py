"""Samples of indexed shards by index, each one read away."""

import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import NO_LABEL, ImageDataset, Indices
from ssl_swin.data.encoded import (
    IMAGE,
    EncodedSample,
    Member,
    further_member_name,
    member_extension,
)
from ssl_swin.data.file_types import extension_of_content
from ssl_swin.data.shards.index_file import Shard, ShardIndex
from ssl_swin.data.shards.tar import BLOCK, header_name
from ssl_swin.errors import UserError
from ssl_swin.quoting import shell_path

MAX_OPEN = 128  # files per process; common limits are 1024

_MAX_GAP_BYTES = 1 << 16  # bytes to read for nothing rather than read twice
_TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN)  # as network disks give
_RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0)


class ShardDataset(ImageDataset):
    """One split of a set of shards.

    Files are opened when needed and by each process for itself. One thread may read at a time.
    """

    def __init__(
        self,
        index: ShardIndex,
        split: str,
        locate: Callable[[Shard], Path] | None = None,
        max_open: int = MAX_OPEN,
        members: Collection[str] | None = None,
    ) -> None:
        """Map the index; no shard is touched.

        Args:
            index: Index of the set.
            split: Name of the split.
            locate: Returns a local copy of a shard, and is picklable; None looks in `index.root`.
            max_open: Number of files to hold open at a time.
            members: Names of the members to read besides the image; None reads all. What is not
                read costs nothing.

        Raises:
            UserError: If the set has no such member.
        """
        self.index = index
        self.split = split
        self.locate = locate
        self.classes = index.classes
        self.fingerprint = index.fingerprint
        self.shards = index.splits[split]
        self._lengths = index.shard_lengths(split)
        self._ends = np.cumsum(self._lengths)
        self._extents = index.extents(split)
        self._chosen = members
        self._columns = _columns(index, members)
        self._member_ranges = index.member_ranges(split)
        self._files = _OpenFiles(max_open)

    def __len__(self) -> int:
        return len(self._extents)

    def __getitem__(self, index: int) -> EncodedSample:
        """Read the sample at `index` in [0, len).

        Raises:
            UserError: If its shard ends before the sample does.
            OSError: If its shard cannot be read; after four more tries where that may help.
        """
        shard, number = self._locate(index)
        ranges = self._ranges(index)
        image, *others = self._read_files(shard, list(ranges.values()))
        members = {IMAGE: Member(image, extension_of_content(image))}
        for extension, data in zip(list(ranges)[1:], others, strict=True):
            members[further_member_name(extension)] = Member(data, member_extension(extension))
        label = int(self._extents[index]["label"])
        name = f"{self.shards[shard].name}:{number}"
        return EncodedSample(name, None if label == NO_LABEL else label, members)

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that are read, "image" first."""
        return (
            IMAGE,
            *dict.fromkeys(further_member_name(extension) for extension in self._columns),
        )

    @property
    def shard_lengths(self) -> Indices | None:
        """Numbers of samples in each shard, in order."""
        return self._lengths

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every sample, -1 for none; no shard is read."""
        return self._extents["label"].astype(np.int64)

    def image_sizes(self) -> NDArray[np.int64]:
        """Return the bytes of every image's file; no shard is read."""
        return self._extents["size"].astype(np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index, self.split, self.locate, self._files.most, self._chosen)

    def is_complete(self) -> NDArray[np.bool_]:
        """Return which samples have every member that is asked for; no shard is read."""
        complete = np.ones(len(self), dtype=bool)
        for name in set(self._chosen or ()) - {IMAGE}:
            columns = [c for ext, c in self._columns.items() if further_member_name(ext) == name]
            complete &= (self._member_ranges[:, columns]["offset"] > 0).any(axis=1)
        return complete

    def shards_of(self, indices: NDArray[np.int64]) -> list[Shard]:
        """Return the shards that hold some samples, each once, in the order of first need."""
        numbers, first = np.unique(self._shard_numbers(indices), return_index=True)
        return [self.shards[number] for number in numbers[np.argsort(first)]]

    def advise(self, indices: NDArray[np.int64]) -> None:
        """Tell the system which samples are next, so that it reads them while others are decoded.

        This is a hint. At the first error it ends in silence: reading will meet the same error.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError, UserError):
            for index, shard in zip(indices, self._shard_numbers(indices), strict=True):
                for offset, size in self._ranges(index).values():
                    os.posix_fadvise(self._open(shard), offset, size, os.POSIX_FADV_WILLNEED)

    def file_name(self, index: int) -> str:
        """Return the name of an image in its tar, for messages; it never fails.

        Tars keep names of over 100 characters apart, in GNU's and pax's formats: of those this is
        the beginning, or whatever stands in their place.
        """
        shard, _ = self._locate(index)
        offset = int(self._extents[index]["offset"])
        try:
            return header_name(self._read(shard, offset - BLOCK, BLOCK))
        except (OSError, UserError):
            return f"at byte {offset}"

    def _ranges(self, index: int) -> dict[str, tuple[int, int]]:
        """Return offset and size of the files to read of a sample: the image, then members."""
        offset, size, _ = self._extents[index].item()
        ranges = {IMAGE: (offset, size)}
        for extension, column in self._columns.items():
            offset, size = self._member_ranges[index, column].item()
            if offset:
                ranges[extension] = offset, size
        return ranges

    def _read_files(self, shard: int, ranges: list[tuple[int, int]]) -> list[bytes]:
        """Read some files of one sample: at once, unless much lies between them."""
        first = min(offset for offset, _ in ranges)
        span = max(offset + size for offset, size in ranges) - first
        if span > sum(size for _, size in ranges) + _MAX_GAP_BYTES:
            return [self._read(shard, offset, size) for offset, size in ranges]
        data = self._read(shard, first, span)
        return [data[offset - first : offset - first + size] for offset, size in ranges]

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the number of a sample's shard, and of the sample in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, int(index - self._ends[shard] + self._lengths[shard])

    def _shard_numbers(self, indices: NDArray[np.int64]) -> NDArray[np.intp]:
        return np.searchsorted(self._ends, indices, side="right")

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        for wait_s in (*_RETRY_WAITS_S, None):
            try:
                data = _read_fully(self._open(shard), offset, size)
                break
            except OSError as error:
                self._files.close(shard)  # a stale handle must be opened anew
                if error.errno not in _TRANSIENT or wait_s is None:
                    error.filename = error.filename or self.shards[shard].name
                    raise
                time.sleep(wait_s)
        if len(data) < size:
            raise UserError(
                f"shard {self.shards[shard].name}: wanted {size} bytes at byte {offset}, got "
                f"{len(data)}: truncated since the run began. Copy it anew"
            )
        return data

    def _open(self, shard: int) -> int:
        try:
            return self._files.descriptor(shard, self._path)
        except FileNotFoundError:  # a cache may drop it again before it is opened
            return self._files.descriptor(shard, self._path)

    def _path(self, shard: int) -> Path:
        locate = self.locate or self._path_in_root
        return locate(self.shards[shard])

    def _path_in_root(self, shard: Shard) -> Path:
        return self.index.root / shard.name


class _OpenFiles:
    """Descriptors of the files in use; beyond a number the least recently used is closed."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._descriptors: OrderedDict[int, int] = OrderedDict()
        self._pid = os.getpid()

    def __del__(self) -> None:
        self._close_all()

    def descriptor(self, key: int, path_of: Callable[[int], Path]) -> int:
        """Open file `key`, or finds it open."""
        if self._pid != os.getpid():  # forked: descriptors would share their read-ahead
            self._close_all()
            self._pid = os.getpid()
        if key not in self._descriptors:
            self._descriptors[key] = os.open(path_of(key), os.O_RDONLY)
            if len(self._descriptors) > self.most:
                self.close(next(iter(self._descriptors)))
        self._descriptors.move_to_end(key)
        return self._descriptors[key]

    def close(self, key: int) -> None:
        """Closes file `key` if it is open."""
        if key in self._descriptors:
            with suppress(OSError):  # a stale handle of a network disk; gone it is all the same
                os.close(self._descriptors.pop(key))

    def _close_all(self) -> None:
        for key in list(self._descriptors):
            self.close(key)


def _columns(index: ShardIndex, members: Collection[str] | None) -> dict[str, int]:
    """Return the columns of the index to read, by file extension."""
    known = {further_member_name(extension) for extension in index.members}
    missing = sorted(set(members or ()) - known - {IMAGE})
    if missing and index.version < 3:
        raise UserError(
            f"the index in {index.folder} is of version {index.version}, which does not list "
            f"members such as {missing[0]!r}. Index the shards anew: "
            f"ssl-swin index {shell_path(index.root)}"
        )
    if missing:
        held = ", ".join(sorted(known)) or "none"
        raise UserError(f"the samples in {index.root} have no member {missing[0]!r}, only: {held}")
    return {
        extension: column
        for column, extension in enumerate(index.members)
        if members is None or further_member_name(extension) in members
    }


def _read_fully(descriptor: int, offset: int, size: int) -> bytes:
    """Read up to the end of the file; one call may give less, as for more than 2 GiB."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (rest := os.pread(descriptor, size - len(data), offset + len(data))):
        data += rest
    return data

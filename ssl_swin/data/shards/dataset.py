"""Images of indexed shards by number, each one read away."""

import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import ImageDataset, Indices
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.file_types import extension_of_content
from ssl_swin.data.shards.index import NO_LABEL, Shard, ShardIndex
from ssl_swin.data.shards.tar import BLOCK, header_name
from ssl_swin.errors import UserError

MAX_OPEN = 128  # files per process; common limits are 1024

_TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN)  # as network disks give
_RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0)


class ShardDataset(ImageDataset):
    """One split of a set of shards, as a source.

    Files are opened when needed and by each process for itself. One thread may read at a time.
    """

    def __init__(
        self,
        index: ShardIndex,
        split: str,
        locate: Callable[[Shard], Path] | None = None,
        max_open: int = MAX_OPEN,
    ) -> None:
        """Maps the index; touches no shard.

        Args:
            index: Of the set.
            split: Which split.
            locate: Gives a local copy of a shard, and is picklable; None looks in `index.root`.
            max_open: Files to hold open at a time.
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
        self._files = _OpenFiles(max_open)

    def __len__(self) -> int:
        return len(self._extents)

    def __getitem__(self, index: int) -> EncodedSample:
        """Reads image `index` in [0, len).

        Raises:
            UserError: If its shard ends before the image does.
            OSError: If its shard cannot be read; after four more tries where that may help.
        """
        shard, number = self._place(index)
        offset, size, label = self._extents[index].item()
        data = self._read(shard, offset, size)
        name = f"{self.shards[shard].name}:{number}"
        return EncodedSample.of_image(
            data, extension_of_content(data), None if label == NO_LABEL else label, name
        )

    @property
    def shard_lengths(self) -> Indices | None:
        """Numbers of samples in each shard, in order."""
        return self._lengths

    def labels(self) -> NDArray[np.int64]:
        """Gives the label of every image, -1 for none; reads no shard."""
        return self._extents["label"].astype(np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index, self.split, self.locate, self._files.most)

    def shards_of(self, indices: NDArray[np.int64]) -> list[Shard]:
        """Gives the shards that hold some images, each once, in the order of first need."""
        numbers, first = np.unique(self._shard_numbers(indices), return_index=True)
        return [self.shards[number] for number in numbers[np.argsort(first)]]

    def advise(self, indices: NDArray[np.int64]) -> None:
        """Tells the system which images are next, so that it reads them while others are decoded.

        This is a hint. At the first trouble it ends in silence: reading will meet the same.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError, UserError):
            for index, shard in zip(indices, self._shard_numbers(indices), strict=True):
                offset, size, _ = self._extents[index].item()
                os.posix_fadvise(self._open(shard), offset, size, os.POSIX_FADV_WILLNEED)

    def file_name(self, index: int) -> str:
        """Gives the name of an image in its tar, for messages; it never fails.

        Tars keep names of over 100 characters apart, in GNU's and pax's formats: of those this is
        the beginning, or whatever stands in their place.
        """
        shard, _ = self._place(index)
        offset = int(self._extents[index]["offset"])
        try:
            return header_name(self._read(shard, offset - BLOCK, BLOCK))
        except (OSError, UserError):
            return f"at byte {offset}"

    def _place(self, index: int) -> tuple[int, int]:
        """Number of an image's shard, and of the image in it."""
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
        """Opens file `key`, or finds it open."""
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


def _read_fully(descriptor: int, offset: int, size: int) -> bytes:
    """Reads up to the end of the file; one call may give less, as for more than 2 GiB."""
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (rest := os.pread(descriptor, size - len(data), offset + len(data))):
        data += rest
    return data

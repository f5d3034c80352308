"""A folder of this node that holds the remote shards in use, up to a limit.

Any number of processes share it: a lock per shard makes one fetch of many requests, a lock on the
capacity keeps the sum of what lies there and what is being transferred within the limit.
"""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.remote.fetch import fetch
from ssl_swin.data.remote.prefetch import Prefetcher
from ssl_swin.data.shards.index_file import Shard
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder

_LOCKS = ".locks"
_PART = ".part"
_POLL_S = 0.1


class ShardCache:
    """Local copies of a remote set's shards, fetched when asked for.

    Shards stay for later runs. One that has the length the index says is taken as it is; beyond the
    limit the least recently used go. A file that someone has open may go too: it stays readable.
    """

    def __init__(
        self, root: str, folder: Path, *, limit_bytes: int, num_tries: int, first_wait_s: float
    ) -> None:
        """Make the folder.

        Args:
            root: URL or pipe of the set, as `fetch` takes it.
            folder: Cache of any number of sets; each has its own sub-folder and limit.
            limit_bytes: Capacity for the shards of this set, transfers included.
            num_tries: Number of tries of a transfer.
            first_wait_s: Wait before the second try; it doubles before each further one.

        Raises:
            UserError: If a number is out of range, or the folder cannot be written to.
        """
        if num_tries < 1 or first_wait_s < 0 or limit_bytes < 1:
            raise UserError(
                "a cache needs num_tries and a limit of at least 1 and first_wait_s of at least 0, "
                f"got {num_tries}, {limit_bytes} bytes and {first_wait_s}"
            )
        self.root = root
        self.folder = Path(folder).absolute() / fingerprint([root.rstrip("/")])
        self.limit_bytes = limit_bytes
        self.num_tries = num_tries
        self.first_wait_s = first_wait_s
        self._prefetcher: Prefetcher | None = None
        make_folder(self.folder / _LOCKS)

    def path(self, shard: Shard) -> Path:
        """Return the local copy of a shard, after fetching it or waiting for the process that does.

        Another process may evict it before the caller opens it; then ask again.

        Raises:
            UserError: If it cannot be fetched, or is larger than the limit.
        """
        if not self._use(shard):
            with FileLock(self._lock_path(_local_name(shard.name))):
                if not self._use(shard):
                    self._fetch(shard)
        return self.folder / _local_name(shard.name)

    def prefetch(self, shards: Iterable[Shard]) -> None:
        """Let a thread fetch shards that will be needed, in order.

        This replaces what an earlier call asked for and the thread has not begun. Failures are left
        to `path` to report. Ask for few shards: they evict those that were least recently used.

        Args:
            shards: The shards to fetch, the first one needed first.
        """
        if self._prefetcher is None or self._prefetcher.pid != os.getpid():  # forked: no thread
            self._prefetcher = Prefetcher(self._fetch_if_nobody_does)
        self._prefetcher.request(shards)

    def close(self) -> None:
        """End the thread after its current transfer."""
        if self._prefetcher is not None and self._prefetcher.pid == os.getpid():
            self._prefetcher.request([None])
        self._prefetcher = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prefetcher": None}

    def _use(self, shard: Shard) -> bool:
        """Mark a shard as just used; False if it is not there in its full length."""
        path = self.folder / _local_name(shard.name)
        try:
            complete = path.stat().st_size == shard.num_bytes
            if complete:
                os.utime(path)
        except FileNotFoundError:
            return False
        return complete

    def _fetch_if_nobody_does(self, shard: Shard) -> None:
        """Fetch a shard that is absent; raise Timeout at once if another process is at it."""
        if self._use(shard):
            return
        with FileLock(self._lock_path(_local_name(shard.name)), blocking=False):
            if not self._use(shard):
                self._fetch(shard)

    def _fetch(self, shard: Shard) -> None:
        """Fetch a shard whose lock is held."""
        part = self._reserve(shard)
        try:
            fetch(
                self.root,
                shard.name,
                part,
                num_bytes=shard.num_bytes,
                num_tries=self.num_tries,
                first_wait_s=self.first_wait_s,
            )
            with part.open("rb") as file:
                os.fsync(file.fileno())  # the machine may stop, and leave a hole of full length
            with self._capacity_lock():
                os.replace(part, self.folder / _local_name(shard.name))
        finally:
            part.unlink(missing_ok=True)

    def _reserve(self, shard: Shard) -> Path:
        """Reserve space; a transfer counts in full, so the name of a part has the full length."""
        if shard.num_bytes > self.limit_bytes:
            raise UserError(
                f"shard {shard.name} has {shard.num_bytes} bytes, more than the cache {self.folder}"
                f" may hold ({self.limit_bytes}). Raise data.cache.limit_gb"
            )
        name = _local_name(shard.name)
        part = self.folder / f"{name}.{shard.num_bytes}{_PART}"
        while True:
            with self._capacity_lock():
                if self._evict(self.limit_bytes - shard.num_bytes, requested=name):
                    part.touch()
                    return part
            time.sleep(_POLL_S)  # the rest is on its way to others, and can go when it has come

    def _evict(self, capacity_bytes: int, requested: str) -> bool:
        """Delete until the rest takes `capacity_bytes` at most; False if transfers prevent it."""
        entries = sorted(
            _entries(self.folder),
            key=lambda entry: (
                entry.name != requested,
                entry.used_ns,
            ),  # its own leftovers go first
        )
        excess = sum(entry.num_bytes for entry in entries) - capacity_bytes
        for entry in entries:
            if excess <= 0:
                break
            if entry.name == requested or self._is_free(entry.name):
                entry.path.unlink(missing_ok=True)
                excess -= entry.num_bytes
        return excess <= 0

    def _is_free(self, name: str) -> bool:
        """Return whether no process fetches a shard; none begins while the capacity is locked."""
        try:
            with FileLock(self._lock_path(name), blocking=False):
                return True
        except Timeout:
            return False

    def _capacity_lock(self) -> FileLock:
        return FileLock(self.folder / _LOCKS / "room")

    def _lock_path(self, name: str) -> Path:
        return self.folder / _LOCKS / f"{name}.lock"


def _local_name(name: str) -> str:
    """Return the file name in the cache of a shard, which may lie in a folder of its set."""
    return name.replace("/", "%2F")


class _Entry(NamedTuple):
    """A shard, or a part of one that reserves its space."""

    path: Path
    name: str  # of the shard
    num_bytes: int
    used_ns: int


def _entries(folder: Path) -> Iterable[_Entry]:
    for file in os.scandir(folder):
        with suppress(FileNotFoundError):  # a transfer that failed meanwhile
            if not file.is_file():
                continue
            status = file.stat()
            name, num_bytes = file.name, status.st_size
            if name.endswith(_PART):
                name, _, reserved = name.removesuffix(_PART).rpartition(".")
                num_bytes = int(reserved)
            yield _Entry(Path(file.path), name, num_bytes, status.st_mtime_ns)

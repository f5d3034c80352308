"""A thread that fetches shards before they are asked for."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from ssl_swin.data.shards.index_file import Shard


class Prefetcher:
    """A daemon thread that fetches what was wished for last."""

    def __init__(self, fetch: Callable[[Shard], None]) -> None:
        self.pid = os.getpid()
        self._fetch = fetch
        self._wanted: deque[Shard | None] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True, name="shard-prefetcher").start()

    def want(self, shards: Iterable[Shard | None]) -> None:
        """Replaces the wishes; None ends the thread."""
        with self._changed:
            self._wanted = deque(shards)
            self._changed.notify()

    def _run(self) -> None:
        while (shard := self._next()) is not None:
            with suppress(Exception):
                self._fetch(shard)

    def _next(self) -> Shard | None:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted)
            return self._wanted.popleft()

"""A thread that fetches shards before they are asked for."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from ssl_swin.data.shards.index_file import Shard


class Prefetcher:
    """A daemon thread that fetches what was requested last."""

    def __init__(self, fetch: Callable[[Shard], None]) -> None:
        self.pid = os.getpid()
        self._fetch = fetch
        self._requested: deque[Shard | None] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True, name="shard-prefetcher").start()

    def request(self, shards: Iterable[Shard | None]) -> None:
        """Replace what was requested before; None ends the thread."""
        with self._changed:
            self._requested = deque(shards)
            self._changed.notify()

    def _run(self) -> None:
        while (shard := self._next()) is not None:
            with suppress(Exception):
                self._fetch(shard)

    def _next(self) -> Shard | None:
        with self._changed:
            self._changed.wait_for(lambda: self._requested)
            return self._requested.popleft()

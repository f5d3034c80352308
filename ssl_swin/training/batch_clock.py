"""How long batches take, and how much of that time waits for data."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_aside_s = 0.0  # of this process


def working_s() -> float:
    """Tell the time in seconds, which stands still while something is done aside."""
    return time.perf_counter() - _aside_s


@contextmanager
def aside() -> Iterator[None]:
    """Do something that is no part of training, as a probe between two steps; not nested."""
    global _aside_s
    began = time.perf_counter()
    try:
        yield
    finally:
        _aside_s += time.perf_counter() - began


class BatchClock:
    """Measures a window of batches; time between epochs, in validation and aside does not count.

    Attributes:
        elapsed_s: Time of the window.
        waited_s: Part of it between a batch and the next.
        num_batches: Batches in it.
    """

    def __init__(self, now: Callable[[], float] = working_s) -> None:
        """Start a window.

        Args:
            now: Tells the time in seconds.
        """
        self._now = now
        self._batch_ended = 0.0
        self.start_window()

    def start_window(self) -> None:
        """Forget the batches so far."""
        self.elapsed_s = self.waited_s = 0.0
        self.num_batches = 0

    def go_on(self) -> None:
        """Leave out the time since the last batch."""
        self._batch_ended = self._now()

    def batch_started(self) -> None:
        """Add the time since the last batch to what was waited."""
        self.waited_s += self._now() - self._batch_ended

    def batch_ended(self) -> None:
        """Count a batch, and the time of it."""
        now = self._now()
        self.elapsed_s += now - self._batch_ended
        self._batch_ended = now
        self.num_batches += 1

"""When a file gets its next line of progress."""

import time
from collections.abc import Callable

FIRST_S = 30.0  # until the second line: early ones tell whether it works at all
GROWTH = 1.5
MOST_S = 300.0

Clock = Callable[[], float]


class Pace:
    """Says when a line is due: often at first, then ever more seldom, up to a longest time."""

    def __init__(
        self, most_s: float = MOST_S, *, at_once: bool = False, clock: Clock = time.monotonic
    ) -> None:
        """Start.

        Args:
            most_s: Longest time between lines.
            at_once: Whether the first line is due immediately, not only after a while.
            clock: Tells the time in seconds.
        """
        self._most_s = most_s
        self._clock = clock
        self._wait_s = min(FIRST_S, most_s)
        self._next_s = clock() + (0.0 if at_once else self._wait_s)

    def due(self) -> bool:
        """Return whether it is time for a line; then the time until the next begins."""
        now_s = self._clock()
        if now_s < self._next_s:
            return False
        self._next_s = now_s + self._wait_s
        self._wait_s = min(self._wait_s * GROWTH, self._most_s)
        return True

"""A share of a run's time that an extra may take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class TimeBudget:
    """Measures what an extra takes, and tells whether it may do its work once more.

    The first time is always allowed, and has to be made up for like any other: the next ones wait.

    Attributes:
        last_s: What the extra took last; 0 before the first time.
        spent_s: What it took so far.
    """

    def __init__(self, ratio: float) -> None:
        """Open the budget; time counts from `start`.

        Args:
            ratio: Largest share of the time of the run, over all its starts.
        """
        self.ratio = ratio
        self.last_s = self.spent_s = 0.0
        self._earlier_s = 0.0  # of starts before this one
        self._started = time.perf_counter()

    def start(self) -> None:
        """Begin counting the time of this start of the run."""
        self._started = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Time of the run over all its starts, with what the extra took of it."""
        return self._earlier_s + time.perf_counter() - self._started

    @property
    def allows(self) -> bool:
        """Whether what the extra took last, once more, stays within the share."""
        return self.spent_s + self.last_s <= self.ratio * (self.elapsed_s + self.last_s)

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Measure what is done inside, also where it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.last_s = time.perf_counter() - began
            self.spent_s += self.last_s

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has to know."""
        return {"elapsed_s": self.elapsed_s, "spent_s": self.spent_s, "last_s": self.last_s}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self._earlier_s = state["elapsed_s"]
        self.spent_s, self.last_s = state["spent_s"], state["last_s"]
        self.start()

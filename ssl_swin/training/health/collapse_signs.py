"""Signs that a training has collapsed, out of a few numbers now and then.

The thresholds are those of public threads on collapsed SimMIM runs, where the loss doubled at once
and stayed, with a gradient of a hundredth of what it had been.
"""

import math
from collections import deque
from typing import Any

SMOOTHED = 20  # observations that one value of the best loss is the mean of
BINS_PER_OCTAVE = 8  # of gradient norms: the median is known to 4 %


class RunningMedian:
    """Median of positive numbers in bounded memory: a histogram over their logarithm."""

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        """Starts empty, or from the counts of another."""
        self.counts = dict(counts or {})

    def add(self, value: float) -> None:
        """Counts a number; one that is not positive and finite has no logarithm."""
        if 0 < value < math.inf:
            number = math.floor(BINS_PER_OCTAVE * math.log2(value))
            self.counts[number] = self.counts.get(number, 0) + 1

    @property
    def value(self) -> float:
        """The centre of the bin that holds the median; 0 of nothing."""
        seen, total = 0, sum(self.counts.values())
        for number in sorted(self.counts):
            seen += self.counts[number]
            if 2 * seen >= total:
                return float(2 ** ((number + 0.5) / BINS_PER_OCTAVE))
        return 0.0


class CollapseSigns:
    """Remembers the best loss and the usual gradient, and since when both are lost."""

    def __init__(
        self, *, loss_factor: float, gradient_factor: float, min_spread: float, for_steps: int
    ) -> None:
        """Sets the thresholds.

        Args:
            loss_factor: A loss of more than this times the best of the run is a sign
            gradient_factor: together with a gradient norm of less than this times its median.
            min_spread: Spread of features (`rep/std_mean`) below which they are all alike.
            for_steps: Optimiser steps that a sign has to last.
        """
        self.loss_factor = loss_factor
        self.gradient_factor = gradient_factor
        self.min_spread = min_spread
        self.for_steps = for_steps
        self.start_again()

    def start_again(self) -> None:
        """Forgets everything."""
        self._recent: deque[float] = deque(maxlen=SMOOTHED)
        self._best = math.inf
        self._norms = RunningMedian()
        self.flat_since: int | None = None
        self.alike_since: int | None = None

    def observe(self, step: int, *, loss: float, gradient_norm: float, spread: float | None) -> str:
        """Takes note of a step; returns what has collapsed, as a phrase, or nothing.

        Args:
            step: Number of optimiser steps made.
            loss: Its loss, over all ranks.
            gradient_norm: Norm of its gradient, before clipping.
            spread: `rep/std_mean` of the objective; None where it has none.
        """
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            return ""
        median = self._norms.value
        is_flat = (
            loss > self.loss_factor * self._best and gradient_norm < self.gradient_factor * median
        )
        self.flat_since = _since(self.flat_since, step, is_flat)
        is_alike = spread is not None and spread < self.min_spread
        self.alike_since = _since(self.alike_since, step, is_alike)
        if not is_flat:
            self._learn(loss, gradient_norm)
        if self.flat_since is not None and step - self.flat_since >= self.for_steps:
            return (
                f"for {step - self.flat_since:,} steps the loss ({loss:.4g}) has been over "
                f"{self.loss_factor:g} times its best ({self._best:.4g}), and the gradient norm "
                f"({gradient_norm:.2g}) under {self.gradient_factor:g} times its median "
                f"({median:.2g})"
            )
        if self.alike_since is not None and step - self.alike_since >= self.for_steps:
            return (
                f"for {step - self.alike_since:,} steps the features of different images have been "
                f"alike: rep/std_mean {spread:.2g} is under {self.min_spread:g}"
            )
        return ""

    def state_dict(self) -> dict[str, Any]:
        """All that it remembers, in plain values."""
        return {
            "recent": list(self._recent),
            "best": self._best,
            "norms": dict(self._norms.counts),
            "flat_since": self.flat_since,
            "alike_since": self.alike_since,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remembers what another did."""
        self._recent = deque(state["recent"], maxlen=SMOOTHED)
        self._best = state["best"]
        self._norms = RunningMedian(state["norms"])
        self.flat_since, self.alike_since = state["flat_since"], state["alike_since"]

    def _learn(self, loss: float, gradient_norm: float) -> None:
        self._norms.add(gradient_norm)
        self._recent.append(loss)
        if len(self._recent) == SMOOTHED:
            self._best = min(self._best, sum(self._recent) / SMOOTHED)


def _since(since: int | None, step: int, holds: bool) -> int | None:
    if not holds:
        return None
    return step if since is None else since

"""A curve of any length in bounded memory: means of neighbouring values, with their extremes."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 2000  # of a curve in memory


class Curve(NamedTuple):
    """One metric over the run: finite `values` at ascending `steps`, at least one.

    Of a long run they are means of neighbouring steps, between `lows` and `highs`; the last one is
    the last value as it was logged.
    """

    name: str
    steps: list[int]
    values: list[float]
    num_nonfinite: int = 0
    lows: list[float] | None = None
    highs: list[float] | None = None


class _Group(NamedTuple):
    first_step: int
    last_step: int
    total: float
    num_values: int
    low: float
    high: float

    def with_next(self, other: "_Group") -> "_Group":
        return _Group(
            self.first_step,
            other.last_step,
            self.total + other.total,
            self.num_values + other.num_values,
            min(self.low, other.low),
            max(self.high, other.high),
        )


class CurveBuilder:
    """A curve of values that come one by one or many at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._groups: list[_Group] = []  # of `_size` values each, but for the last
        self._size = 1
        self._last = (-1, 0.0)
        self._num_nonfinite = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is no finite value."""
        return not self._groups

    def add(self, step: int, value: float) -> None:
        """Add a value; one at an earlier step than the last replaces what follows it."""
        while self._groups and self._groups[-1].last_step >= step:
            self._groups.pop()
        if not math.isfinite(value):
            self._num_nonfinite += 1
            return
        self._last = step, value
        self._extend([_Group(step, step, value, 1, value, value)])
        if len(self._groups) > MOST_POINTS:
            self._halve()

    def add_many(self, steps: NDArray[np.int64], values: NDArray[np.float64]) -> None:
        """Add values at ascending steps, all of them after the last one.

        Args:
            steps: (N,).
            values: (N,); those that are not finite are counted and left out.
        """
        is_finite = np.isfinite(values)
        self._num_nonfinite += int(np.count_nonzero(~is_finite))
        steps, values = steps[is_finite], values[is_finite]
        if not len(values):
            return
        self._last = int(steps[-1]), float(values[-1])
        while len(self._groups) + math.ceil(len(values) / self._size) > MOST_POINTS:
            self._halve()
        self._extend(self._grouped(steps, values))

    def _extend(self, groups: list[_Group]) -> None:
        """Append groups, the first of which goes into the last one if that has room."""
        if self._room:
            self._groups[-1] = self._groups[-1].with_next(groups.pop(0))
        self._groups += groups

    @property
    def _room(self) -> int:
        """Values that the last group still takes."""
        return self._size - self._groups[-1].num_values if self._groups else 0

    def _grouped(self, steps: NDArray[np.int64], values: NDArray[np.float64]) -> list[_Group]:
        """Return values in groups, the first as large as the room of the last one of before."""
        starts = np.arange(self._room, len(values), self._size)
        if self._room:
            starts = np.concatenate(([0], starts))
        ends = np.append(starts[1:], len(values))
        columns = (
            steps[starts],
            steps[ends - 1],
            np.add.reduceat(values, starts),
            ends - starts,
            np.minimum.reduceat(values, starts),
            np.maximum.reduceat(values, starts),
        )
        return [_Group(*row) for row in zip(*(each.tolist() for each in columns), strict=True)]

    def _halve(self) -> None:
        """Join groups by twos."""
        self._size *= 2
        pairs = zip(self._groups[::2], self._groups[1::2], strict=False)
        odd = self._groups[-1:] if len(self._groups) % 2 else []
        self._groups = [one.with_next(other) for one, other in pairs] + odd

    def built(self) -> Curve:
        """Return the curve so far."""
        groups, name, bad = self._groups, self.name, self._num_nonfinite
        if self._size == 1:
            steps, values = [g.last_step for g in groups], [g.total for g in groups]
            return Curve(name, steps, values, bad)
        step, value = self._last
        if groups[-1].num_values > 1:
            *before, last = groups
            rest = last._replace(
                total=last.total - value, num_values=last.num_values - 1, last_step=step - 1
            )
            groups = [*before, rest, _Group(step, step, value, 1, value, value)]
        return Curve(
            name,
            [(g.first_step + g.last_step) // 2 for g in groups],
            [g.total / g.num_values for g in groups],
            bad,
            [g.low for g in groups],
            [g.high for g in groups],
        )

"""The curves in a run's `metrics.csv`, and which of them share a picture."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

NOT_METRICS = ("step", "epoch", "samples_seen")
MOST_POINTS = 2000  # of a curve in memory
SPLITS = ("train", "val", "test")
SHARED_UNIT = ("lr", "probe")  # families that one axis can hold


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


def read_curves(path: Path) -> list[Curve]:
    """Reads every metric that has a finite value, in the order of the columns.

    Empty and unreadable cells are skipped, as are rows without a step, such as a last line that a
    crash cut short. Where a resumed run logged a step again, the later row counts. Values that are
    not finite are left out and counted. A curve takes the memory of `MOST_POINTS` points at most,
    however long the file is.
    """
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(line.replace("\0", "") for line in file)
        names = next(rows, [])
        at = names.index("step") if "step" in names else -1
        curves = [None if name in NOT_METRICS else CurveBuilder(name) for name in names]
        for row in rows if at >= 0 else ():
            step = _number(row[at]) if len(row) > at else None
            if step is None or not math.isfinite(step):
                continue
            for curve, cell in zip(curves, row, strict=False):
                if cell and curve is not None and (value := _number(cell)) is not None:
                    curve.add(int(step), value)
    return [curve.built() for curve in curves if curve is not None and not curve.is_empty]


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
    """A curve of values that come one by one, in bounded memory."""

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
        point = _Group(step, step, value, 1, value, value)
        if self._groups and self._groups[-1].num_values < self._size:
            self._groups[-1] = self._groups[-1].with_next(point)
        else:
            self._groups.append(point)
        if len(self._groups) > MOST_POINTS:
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


def group_curves(curves: Iterable[Curve]) -> dict[str, list[Curve]]:
    """Groups curves of one quantity: panel title to curves, the loss first, else in order.

    Splits of one metric go together (`train/loss` and `val/loss` under "loss"), so do the parts of
    a deeper name (`probe/knn_top1/stage1` under "probe/knn_top1"), and families with a common unit
    (`lr/*`, `probe/*`). Anything else stands alone.
    """
    panels: dict[str, list[Curve]] = {}
    for curve in curves:
        panels.setdefault(_panel_title(curve.name), []).append(curve)
    return {title: panels[title] for title in sorted(panels, key=lambda title: title != "loss")}


def _panel_title(name: str) -> str:
    family, *rest = name.split("/")
    if family in SHARED_UNIT and len(rest) == 1:
        return family
    if len(rest) > 1:
        rest = rest[:-1]
    return "/".join(rest if family in SPLITS and rest else [family, *rest])


def _number(cell: str | None) -> float | None:
    try:
        return float(cell or "")
    except ValueError:
        return None

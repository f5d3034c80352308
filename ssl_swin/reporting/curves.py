"""The curves in a run's `metrics.csv`, and which of them share a picture."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_swin.reporting.thinning import Curve, CurveBuilder
from ssl_swin.runs.metrics_blocks import blocks, steps_of_whole
from ssl_swin.runs.metrics_rows import LineCheck

SAMPLES_SEEN = "samples_seen"
NOT_METRICS = ("step", "epoch")
SPLITS = ("train", "val", "test")
SHARED_UNIT = ("lr", "probe")  # families that one axis can hold


class Curves(NamedTuple):
    """What a run has logged.

    Attributes:
        metrics: Every metric that has a finite value, in the order of the columns.
        samples_seen: How many samples were seen at which step; None if that was not logged.
    """

    metrics: list[Curve]
    samples_seen: Curve | None


def read_curves(path: Path) -> list[Curve]:
    """Reads every metric that has a finite value, as `read_with_samples` does."""
    return read_with_samples(path).metrics


def read_with_samples(path: Path) -> Curves:
    """Reads the metrics, and how many samples were seen.

    Empty and unreadable cells are skipped, as are rows without a step, such as a last line that a
    crash cut short. Where a resumed run logged a step again, the later row counts. Values that are
    not finite are left out and counted. A curve takes the memory of `MOST_POINTS` points at most,
    however long the file is.
    """
    with path.open("rb") as file:
        names = next(csv.reader(_text(file.readline())), [])
        if "step" not in names:
            return Curves([], None)
        columns = _Columns(names)
        for block in blocks(file):
            columns.add(block)
    found = [curve.built() for curve in columns.builders if curve and not curve.is_empty]
    seen = next((curve for curve in found if curve.name == SAMPLES_SEEN), None)
    return Curves([curve for curve in found if curve is not seen], seen)


class _Columns:
    """Curves of the columns of a file, which come in blocks of its lines."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.builders = [None if name in NOT_METRICS else CurveBuilder(name) for name in names]
        self._step_at = names.index("step")
        self._check = LineCheck(names) if self._step_at == 0 else None
        self._last_step = -1

    def add(self, block: bytes) -> None:
        steps = None if self._check is None else steps_of_whole(block, self._check)
        if steps is not None and steps[0] > self._last_step:
            self._last_step = int(steps[-1])
            self._add_columns(steps, block.decode("ascii").replace("\n", ",").split(",")[:-1])
        else:
            for row in csv.reader(_text(block)):
                self._add_row(row)

    def _add_columns(self, steps: NDArray[np.int64], cells: Sequence[str]) -> None:
        for at, curve in enumerate(self.builders):
            if curve is None:
                continue
            column = cells[at :: len(self.names)]
            filled = [row for row, cell in enumerate(column) if cell]
            values = np.array([float(column[row]) for row in filled])
            curve.add_many(steps[filled], values)

    def _add_row(self, row: Sequence[str]) -> None:
        step = _number(row[self._step_at]) if len(row) > self._step_at else None
        if step is None or not math.isfinite(step):
            return
        self._last_step = max(self._last_step, int(step))
        for curve, cell in zip(self.builders, row, strict=False):
            if cell and curve is not None and (value := _number(cell)) is not None:
                curve.add(int(step), value)


def _text(lines: bytes) -> io.StringIO:
    text = lines.decode("utf-8", errors="replace").replace("\0", "")
    return io.StringIO(text, newline="")


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

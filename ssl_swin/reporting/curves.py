"""The curves in a run's `metrics.csv`, and which of them share a picture."""

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

NOT_METRICS = ("step", "epoch")
SPLITS = ("train", "val", "test")
SHARED_UNIT = ("lr", "probe")  # families that one axis can hold


class Curve(NamedTuple):
    """One metric over the run: finite `values` at ascending `steps`, at least one."""

    name: str
    steps: list[int]
    values: list[float]
    num_nonfinite: int = 0


def read_curves(path: Path) -> list[Curve]:
    """Reads every metric that has a finite value, in the order of the columns.

    Empty and unreadable cells are skipped, as are rows without a step, such as a last line that a
    crash cut short. Where a resumed run logged a step again, the later row counts. Values that are
    not finite are left out and counted.
    """
    cells: dict[str, dict[int, float]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file, restval=""):
            step = _number(row.get("step"))
            if step is None or not math.isfinite(step):
                continue
            for name, cell in row.items():
                value = None if name is None or name in NOT_METRICS else _number(cell)
                if value is not None:
                    cells.setdefault(name, {})[int(step)] = value
    curves = [_curve(name, values) for name, values in cells.items()]
    return [curve for curve in curves if curve.steps]


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


def _curve(name: str, values: dict[int, float]) -> Curve:
    steps = sorted(step for step, value in values.items() if math.isfinite(value))
    return Curve(name, steps, [values[step] for step in steps], len(values) - len(steps))


def _number(cell: str | None) -> float | None:
    try:
        return float(cell or "")
    except ValueError:
        return None

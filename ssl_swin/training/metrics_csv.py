"""Every logged scalar in one readable file, whatever else is logged to."""

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ssl_swin.files import write_atomically

FIRST_COLUMNS = ("step", "epoch")


class MetricsCsv(Logger):
    """Writes `metrics.csv`: one row per logged step, one column per metric, empty where unlogged.

    A resumed run continues the file: rows from beyond the step it resumes at are dropped, since
    those steps are about to be done again.
    """

    def __init__(self, path: str | Path, *, resume: bool) -> None:
        """Sets the logger up.

        Args:
            path: The file.
            resume: Continue it if it exists, instead of writing it anew.
        """
        super().__init__()
        self.path = Path(path)
        self.rows: dict[int, dict[str, float]] = _read(self.path) if resume else {}
        self._write_again_at = 0.0

    @property
    def name(self) -> str:
        """Lightning's name for the kind of logger."""
        return "csv"

    @property
    def version(self) -> str:
        """There is only one version."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> "MetricsCsv":
        """The logger itself."""
        return self

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Hyperparameters are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Adds to the row of a step."""
        row = self.rows.setdefault(0 if step is None else step, {})
        row.update({name: float(value) for name, value in metrics.items()})

    @rank_zero_only
    def forget_after(self, step: int) -> None:
        """Drops the rows of later steps."""
        self.rows = {s: row for s, row in self.rows.items() if s <= step}

    @rank_zero_only
    def save(self) -> None:
        """Writes the file anew, atomically, if it is time: at most 1 % of a run goes into this."""
        started = time.monotonic()
        if started >= self._write_again_at:
            self.flush()
            self._write_again_at = started + max(5.0, 100 * (time.monotonic() - started))

    @rank_zero_only
    def flush(self) -> None:
        """Writes the file anew, now; done with every checkpoint, so that it never lags behind."""
        if self.rows:
            write_atomically(self.path, _to_csv(self.rows))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the file at the end of a run, whatever its status."""
        self.flush()


def _to_csv(rows: dict[int, dict[str, float]]) -> str:
    names = sorted({name for row in rows.values() for name in row if name != "epoch"})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*FIRST_COLUMNS, *names])
    for step in sorted(rows):
        row = rows[step]
        epoch = int(row["epoch"]) if "epoch" in row else ""
        writer.writerow([step, epoch, *(_cell(row.get(name)) for name in names)])
    return text.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def _read(path: Path) -> dict[int, dict[str, float]]:
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {int(row.pop("step")): _numbers(row) for row in csv.DictReader(file)}


def _numbers(row: dict[str, str]) -> dict[str, float]:
    values = {name: float(cell) for name, cell in row.items() if cell}
    return {name: value for name, value in values.items() if not math.isnan(value)}

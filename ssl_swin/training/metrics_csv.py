"""Every logged scalar in one readable file, whatever else is logged to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ssl_swin.runs.metrics_file import MetricsFile
from ssl_swin.training.progress import Progress, seen


class MetricsCsv(Logger):
    """Writes `metrics.csv`: one row per logged step, one column per metric, empty where unlogged.

    The step of a row is the number of optimiser steps done: 0 is the untrained model, and what the
    first step measured stands at 1, as do a picture and a checkpoint of that moment. (Lightning
    counts the step of what it logs from 0, and that of checkpoints from 1.)

    A resumed run continues the file: rows from beyond the step it resumes at are dropped, since
    those steps are about to be done again.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        resume: bool,
        progress: Progress,
        check_place: Callable[[], None] = lambda: None,
    ) -> None:
        """Sets the logger up.

        Args:
            path: The file.
            resume: Continue it if it exists, instead of writing it anew.
            progress: Says which step a row is of.
            check_place: Raises a DiskError if the folder has vanished, before it is made anew.
        """
        super().__init__()
        self.file = MetricsFile(path)
        self.progress = progress
        self._check_place = check_place
        self.note = self.file.read() if resume else ""  # what was found damaged

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
        """Adds to the row of the step that is done; `step`, as Lightning counts it, is not used."""
        values = {name: float(value) for name, value in metrics.items()}
        self._check_place()
        self.file.write(self.progress.step, {**seen(self.progress), **values})

    @rank_zero_only
    def forget_after(self, step: int) -> None:
        """Drops the rows of later steps."""
        self.file.forget_after(step)

    @rank_zero_only
    def flush(self) -> None:
        """Makes what was written outlive a failure of the machine; done with every checkpoint."""
        self._check_place()
        self.file.sync()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """The same at the end of a run, whatever its status."""
        self.flush()

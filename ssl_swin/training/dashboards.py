"""Dashboards, as Weights & Biases and TensorBoard: every logged step once, also over many starts.

metrics.csv is the record, since a checkpoint is written only after the rows up to its step. What a
dashboard's own buffer loses in a kill, and what was logged after the last checkpoint and is about
to be logged again, would otherwise leave gaps and doubles:

- Files are written anew when a run is continued: from metrics.csv and the run's pictures. What
  earlier starts wrote is removed, so that one upload holds the whole run.
- A server is asked for the last step that it has. What it lacks is sent, what it has is not.

A row is passed on when it is complete, that is, when the next one begins.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from ssl_swin.runs.metrics import improved
from ssl_swin.runs.metrics_file import MetricsFile
from ssl_swin.training.progress import Progress, seen
from ssl_swin.training.tensorboard_hyperparameters import write_hyperparameters

STEP = "step"  # of a row, beside its values: tells a row from a picture of the same step
BEST = "best"  # what best values are called by, before the metric's name


class Dashboard(Logger):
    """Passes rows on to another logger, each step once.

    This one serves any logger: it is taken to have whatever a checkpoint covers.
    """

    def __init__(self, logger: Logger, progress: Progress) -> None:
        """Sets the logger up.

        Args:
            logger: Where rows go.
            progress: Says which step a row is of.
        """
        super().__init__()
        self.logger = logger
        self.progress = progress
        self._step = -1
        self._row: dict[str, float] = {}
        self._has_rows_to = -1
        self._has_pictures_to = -1

    @property
    def name(self) -> str | None:
        """The logger's own."""
        return self.logger.name

    @property
    def version(self) -> int | str | None:
        """The logger's own."""
        return self.logger.version

    @property
    def save_dir(self) -> str | None:
        """The logger's own."""
        return self.logger.save_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The logger's own."""
        return getattr(self.logger, "experiment", None)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Passes the run's configuration on."""
        self.logger.log_hyperparams(dict(params))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Adds to the row of the step that is done; `step`, as Lightning counts it, is not used."""
        self._begin_row()
        self._row |= {**seen(self.progress), **metrics}

    @rank_zero_only
    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, **others: Any
    ) -> None:
        """Passes pictures of a step on, if the logger takes any and lacks them."""
        self._begin_row()
        at = self.progress.step if step is None else step
        if at > self._has_pictures_to:
            self._pass_pictures_on(at, key, list(images), **others)

    @property
    def lacks_pictures_from(self) -> int:
        """First step whose pictures it does not have."""
        return self._has_pictures_to + 1

    @rank_zero_only
    def catch_up(self, metrics: MetricsFile, step: int) -> None:
        """Passes on what the logger lacks of the rows up to the step that a run starts at.

        Args:
            metrics: The run's metrics.csv.
            step: Number of steps done.
        """
        self._has_rows_to, self._has_pictures_to = self._steps_held(step)
        for at, row in metrics.rows(after=self._has_rows_to, up_to=step):
            self._pass_on(at, row)
        self.logger.save()  # once: for each of a million rows it takes as long as the rows
        self._remove_earlier()

    def _steps_held(self, step: int) -> tuple[int, int]:
        """Returns up to which step the logger has rows, and pictures."""
        return (step, step) if step else (-1, -1)

    def _remove_earlier(self) -> None:
        """Removes what earlier starts of the run wrote and is written anew."""

    @rank_zero_only
    def save(self) -> None:
        """Nothing: a row is passed on when the next one begins."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Passes the last row on."""
        self.flush()
        self.logger.finalize(status)

    @rank_zero_only
    def flush(self) -> None:
        """Passes on the row that was begun."""
        if self._row:
            self._pass_on(self._step, self._row)
            self.logger.save()
        self._row = {}

    def _begin_row(self) -> None:
        if self.progress.step != self._step:
            self.flush()
            self._step = self.progress.step

    def _pass_on(self, step: int, row: Mapping[str, float]) -> None:
        if step > self._has_rows_to:
            self._has_rows_to = step
            self.logger.log_metrics(dict(row), step)

    def _pass_pictures_on(self, step: int, key: str, images: list[Any], **others: Any) -> None:
        if hasattr(self.logger, "log_image"):
            self.logger.log_image(key, images, step=step, **others)


class WandbDashboard(Dashboard):
    """Weights & Biases.

    Its summary has the last value of every metric, and as best/NAME the best on held-out images.
    (W&B's own best value would take the place of the last one, which sweeps look for, and would not
    know of what was logged before a run is continued.)
    """

    def __init__(self, logger: Logger, progress: Progress) -> None:
        super().__init__(logger, progress)
        self._best: dict[str, float] = {}

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Passes on what is new: W&B warns of a setting that its sweep has set, with any value."""
        known = self.experiment.config
        new = {name: value for name, value in params.items() if known.get(name, known) != value}
        self.logger.log_hyperparams(new)

    def _steps_held(self, step: int) -> tuple[int, int]:
        if self.experiment.offline:
            return -1, -1
        summary = self.experiment.summary  # of a run that is continued, as the server has it
        rows, everything = (summary.get(key) for key in (STEP, "trainer/global_step"))
        return (-1 if rows is None else int(rows)), (-1 if everything is None else int(everything))

    def _remove_earlier(self) -> None:
        if not self.experiment.offline:
            return
        own = Path(self.experiment.dir).resolve().parent
        pattern = f"wandb/offline-run-*-{self.version}"
        for folder in Path(self.save_dir or ".").glob(pattern):
            if folder.resolve() != own:
                shutil.rmtree(folder, ignore_errors=True)

    def _pass_on(self, step: int, row: Mapping[str, float]) -> None:
        super()._pass_on(step, {**row, STEP: step})
        better = improved(self._best, row)
        self._best |= better
        for name, value in better.items():
            self.experiment.summary[f"{BEST}/{name}"] = value

    @rank_zero_only
    def catch_up(self, metrics: MetricsFile, step: int) -> None:
        """Goes on from the best values of a run that a server has, and passes on what it lacks."""
        summary = dict(self.experiment.summary)
        for name, value in summary.items():
            if name.startswith(f"{BEST}/"):
                self._best[name.removeprefix(f"{BEST}/")] = float(value)
        super().catch_up(metrics, step)


class TensorBoardDashboard(Dashboard):
    """TensorBoard."""

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Lists the configuration beside the metric that the run is judged by."""
        super().log_hyperparams(params)
        write_hyperparameters(self.experiment, params, judged_by=params.get("optimized_metric"))

    def _steps_held(self, step: int) -> tuple[int, int]:
        return -1, -1

    def _remove_earlier(self) -> None:
        for file in Path(self.experiment.log_dir).glob("*tfevents*"):
            if f".{os.getpid()}." not in file.name:  # which names the process that writes it
                file.unlink(missing_ok=True)

    def _pass_pictures_on(self, step: int, key: str, images: list[Any], **others: Any) -> None:
        for number, image in enumerate(images):
            pixels = np.asarray(image)
            name = key if len(images) == 1 else f"{key}/{number}"
            layout = "HWC" if pixels.ndim == 3 else "HW"
            self.experiment.add_image(name, pixels, step, dataformats=layout)


def dashboard(logger: Logger, progress: Progress) -> Dashboard:
    """Returns a logger so wrapped that it gets every step once.

    Args:
        logger: Any logger.
        progress: Says which step a row is of.
    """
    if isinstance(logger, WandbLogger):
        return WandbDashboard(logger, progress)
    if isinstance(logger, TensorBoardLogger):
        return TensorBoardDashboard(logger, progress)
    return Dashboard(logger, progress)

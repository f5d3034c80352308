"""Every logged step once, whatever happens between two checkpoints."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from ssl_swin.training.dashboards import Dashboard
from ssl_swin.training.metrics_csv import MetricsCsv


class KeepMetrics(Callback):
    """Keeps metrics.csv in step with the checkpoints, and dashboards in step with metrics.csv.

    A checkpoint is written only when every row up to its step is on disk. A run that is continued
    from it drops later rows, and gives each dashboard the rows that it lacks.
    """

    def __init__(self) -> None:
        self._is_caught_up = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Brings everything to the step that the run starts at."""
        for logger in _files(trainer):
            logger.forget_after(trainer.global_step)
        self._catch_up(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same for a run that had been finished, which has no start."""
        if not self._is_caught_up:
            self._catch_up(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Writes the row of the step that is saved, which Lightning would do after saving."""
        connector = trainer._logger_connector
        if isinstance(connector._first_loop_iter, bool):  # between a batch's start and its end
            connector.update_train_step_metrics()
        for logger in _files(trainer):
            logger.flush()

    def _catch_up(self, trainer: Trainer) -> None:
        self._is_caught_up = True
        catch_up(trainer.loggers, trainer.global_step)


def catch_up(loggers: Sequence[Logger], step: int) -> None:
    """Gives each dashboard the rows that it lacks up to the step that a run starts at.

    Args:
        loggers: The run's, with its metrics.csv.
        step: Number of steps done.
    """
    for metrics in loggers:
        for logger in loggers:
            if isinstance(metrics, MetricsCsv) and isinstance(logger, Dashboard):
                logger.catch_up(metrics.file, step)


def _files(trainer: Trainer) -> list[MetricsCsv]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsCsv)]

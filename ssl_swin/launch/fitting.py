"""Lightning's side of a run: trainer, callbacks, loggers."""

import re
import time
from contextlib import AbstractContextManager
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from ssl_swin.errors import UserError
from ssl_swin.launch.first_look import look_first
from ssl_swin.launch.keeping import use_backbone, use_data
from ssl_swin.launch.loggers import close_logger, folder_of, open_logger
from ssl_swin.launch.printing import is_first_process, say
from ssl_swin.launch.resolvers import sweep_name
from ssl_swin.launch.run import Run, start_folder
from ssl_swin.launch.targets import make
from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.stopping.stopped import RunStopped
from ssl_swin.stopping.watch import current_watch
from ssl_swin.training.callbacks.keep_metrics import KeepMetrics
from ssl_swin.training.callbacks.stop_at_step import StopAtStep
from ssl_swin.training.checkpointing.io import AtomicCheckpointIO
from ssl_swin.training.checkpointing.schedule import StepCheckpoint
from ssl_swin.training.dashboards import dashboard
from ssl_swin.training.datamodule import ImageDataModule
from ssl_swin.training.extras import guard_logger
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.peers import TellWhoIsLate, naming_lost_peers
from ssl_swin.training.progress import Progress, TrainingProgress
from ssl_swin.training.strategy import ShardedStrategy


def make_loggers(run: Run, progress: Progress) -> list[Logger]:
    """The run's metrics.csv, and the logger that the configuration asks for.

    Args:
        run: The run.
        progress: Says how far the training is.
    """
    path, resume = run.folder.metrics, run.checkpoint is not None
    metrics = MetricsCsv(
        path,
        resume=resume and is_first_process(),
        progress=progress,
        check_place=run.folder.place.check,
    )
    if metrics.note:
        say(f"note: {metrics.note}")
    loggers: list[Logger] = [metrics]
    logger = run.cfg.logger
    if logger is not None and logger.get("_target_") is not None:
        # One process decides on the run's id; the others log nothing.
        known = "id" in logger and is_first_process()
        identity = {"id": run.folder.identity()} if known else {}
        failures = SideFailures(run.folder.path, tell=say)
        opened = open_logger(logger, identity, failures)
        if opened is not None:
            passing_on = dashboard(opened, progress)
            guard_logger(passing_on, failures, folder_of(opened))
            if is_first_process():
                passing_on.log_hyperparams({**run.config, "provenance": run.folder.facts()})
            loggers.append(passing_on)
            use_backbone(run, loggers)
    return loggers


def make_trainer(run: Run) -> Trainer:
    """Lightning's trainer with the run's callbacks and checkpoints; `fit` adds the loggers."""
    trainer: Trainer = make(
        run.cfg.trainer,
        callbacks=_callbacks(run),
        logger=False,
        plugins=[
            AtomicCheckpointIO(
                check_place=run.folder.place.check,
                identity=run.folder.identity,
                config=run.config,
            )
        ],
        default_root_dir=str(run.folder.path),
    )
    return trainer


def _callbacks(run: Run) -> list[Callback]:
    chosen = [c for c in run.cfg.callbacks.values() if c is not None]
    stop = StopAtStep(run.folder.last_checkpoint, current_watch())
    always_last = [TellWhoIsLate(), stop]  # whatever `callbacks=` says
    return [TrainingProgress(), KeepMetrics(), *map(make, chosen), *always_last]


def fit(run: Run, trainer: Trainer, module: TrainingModule, data: ImageDataModule) -> None:
    """Creates the run's folder and trains, from the start or from the run's checkpoint.

    Raises:
        UserError: If there is no metric to monitor, or Lightning refuses the settings.
    """
    data.trainer = trainer
    module.optimizer_for(trainer, data)  # a faulty recipe shows before a file is written
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, StepCheckpoint):
            callback.choose_metric(module.model)
    _check_optimized_metric(run, module)
    _check_resumable(run, trainer)
    _tell_of_long_warmup(run)
    look_first(run, trainer, module, data)
    start_folder(run, data.readers)
    (progress,) = (c for c in trainer.callbacks if isinstance(c, TrainingProgress))  # type: ignore[attr-defined]
    trainer.loggers = make_loggers(run, progress)
    use_data(run, trainer.loggers, data.readers)
    if run.checkpoint is not None:
        say(f"continuing from {run.checkpoint}")
    _limit_time(run, trainer)
    try:
        with naming_lost_peers(trainer), _telling_who_is_late(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=run.checkpoint)
    except MisconfigurationException as error:
        raise UserError(str(error)) from error
    except RunStopped as stopped:
        _close_stopped(run, trainer, stopped)
        raise
    if isinstance(trainer.strategy, ShardedStrategy):
        trainer.strategy.hand_back()


def _check_optimized_metric(run: Run, module: TrainingModule) -> None:
    """Refuse to sweep for a metric that no validation has; callbacks may log others."""
    if sweep_name() is None:
        return
    metric = run.cfg.get("optimized_metric")
    known = [f"val/{name}" for name in module.model.new_metrics()]
    if metric is not None and metric not in known and re.match("val/|[^/]*$", metric):
        raise UserError(
            f"there is no metric {metric} for optimized_metric; {module.model.title} has "
            f"{', '.join(known)}: give one of them, as optimized_metric={known[0]}"
        )


def _limit_time(run: Run, trainer: Trainer) -> None:
    """Start counting trainer.max_time, which began with the run and not with its first step."""
    if trainer.max_time_s is not None:  # type: ignore[attr-defined]
        passed = time.time() - run.started
        current_watch().limit_time(trainer.max_time_s - passed)  # type: ignore[attr-defined]


def _telling_who_is_late(trainer: Trainer) -> AbstractContextManager[None]:
    found = [each for each in trainer.callbacks if isinstance(each, TellWhoIsLate)]  # type: ignore[attr-defined]
    return found[0].watching(trainer)


def _close_stopped(run: Run, trainer: Trainer, stopped: RunStopped) -> None:
    if trainer.is_global_zero:
        run.folder.finish(time.time() - run.started, f"stopped by {stopped.reason}")
    close_loggers(trainer.loggers)


def _check_resumable(run: Run, trainer: Trainer) -> None:
    """Refuse checkpoints of which none is what the run would be continued from."""
    expected = run.folder.last_checkpoint
    written = {
        Path(checkpoint.dirpath or "") / f"{checkpoint.filename}.ckpt"
        for checkpoint in trainer.checkpoint_callbacks
        if isinstance(checkpoint, ModelCheckpoint)
    }
    if run.config["resume"] == "auto" and expected.resolve() not in map(Path.resolve, written):
        raise UserError(
            f"nothing would write {expected}, which resume=auto continues from: leave dirpath and "
            "filename of callbacks.last as they are, or set resume=never"
        )


def _tell_of_long_warmup(run: Run) -> None:
    warmup_epochs = run.cfg.schedule.get("warmup_epochs", 0)
    if warmup_epochs > run.cfg.trainer.max_epochs:
        say(
            f"note: schedule.warmup_epochs={warmup_epochs:g} is longer than "
            f"trainer.max_epochs={run.cfg.trainer.max_epochs}: the learning rate stays below "
            "optim.base_lr"
        )


def close_loggers(loggers: list[Logger]) -> None:
    """Ends what a logger keeps open, so that the next job of a sweep starts its own."""
    for logger in loggers:
        close_logger(logger)

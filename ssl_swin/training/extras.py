"""Extras of a training: callbacks and loggers whose failure costs a line and not the run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.training.all_ranks import FailedTogetherError
from ssl_swin.training.batch_clock import aside
from ssl_swin.training.disk_watch import DiskWatch
from ssl_swin.training.peers import is_lost_peer

HOOKS = "on_"
LOGGER_METHODS = (
    "log_metrics",
    "log_hyperparams",
    "log_image",
    "log_graph",
    "catch_up",
    "save",
    "flush",
    "finalize",
    "after_save_checkpoint",
)


class Extra(Callback):
    """A callback that the training can do without: what its `on_` hooks raise is written down.

    `setup` is where it refuses settings: that ends the run before its first step. Where a hook runs
    on several ranks and one of them waits for another, the ranks have to fail together: see
    `done_by_all`.

    Attributes:
        title: What failed, for a reader.
    """

    title = "a callback"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Guard the hooks that a class defines."""
        super().__init_subclass__(**kwargs)
        for name, hook in list(vars(cls).items()):
            if name.startswith(HOOKS) and callable(hook):
                setattr(cls, name, _guarded_hook(hook))

    def failures(self, trainer: Trainer) -> SideFailures:
        """Return where failures are written down."""
        if not hasattr(self, "_failures"):
            self._failures = SideFailures(trainer.default_root_dir)
        return self._failures


def _guarded_hook(hook: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(hook)
    def guarded(self: Extra, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        memory = False
        try:
            with aside():
                hook(self, trainer, *args, **kwargs)
        except Exception as error:
            is_agreed = isinstance(error, FailedTogetherError)
            if trainer.world_size > 1 and is_lost_peer(error) and not is_agreed:
                raise  # nothing can go on without the other process
            memory = isinstance(error.__cause__ if is_agreed else error, torch.OutOfMemoryError)
            if trainer.is_global_zero or not is_agreed:  # told once
                self.failures(trainer).add(self.title, error)
        if memory:  # only here has the error let go of what it held
            torch.cuda.empty_cache()

    return guarded


def guard_logger(logger: Logger, failures: SideFailures, folder: Path | None = None) -> None:
    """Let a logger fail alone: from the first failure on it is given nothing any more.

    Args:
        logger: Any logger beside metrics.csv.
        failures: Where the failure is written down.
        folder: Where it writes, which is a failure if it takes no files any more.
    """
    kind = type(getattr(logger, "logger", logger)).__name__
    is_off = False
    disk = DiskWatch(folder)

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal is_off
            if is_off:
                return None
            try:
                disk.look(at_once=method.__name__ == "finalize")
                return method(*args, **kwargs)
            except Exception as error:
                is_off = True
                effect = "training goes on without it and writes metrics.csv"
                failures.add(kind, error, effect)
                return None

        return call

    for name in LOGGER_METHODS:
        if hasattr(logger, name):
            setattr(logger, name, guarded(getattr(logger, name)))

"""Clocks inside a pretraining run, hung on from outside: start-up, steps, and what each hook takes.

Imported by the timed run once the run's own imports are done, so as not to be counted among them.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from time import perf_counter
from types import ModuleType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from ssl_swin.launch import fitting

LOGGER_METHODS = ("log_metrics", "log_image", "log_hyperparams", "save", "flush", "finalize")
HOOK_PREFIXES = ("on_", "setup", "teardown")

Note = Callable[[str], None]


class HookClock:
    """Seconds spent in methods, by the class that has them; what they call of others is theirs.

    On a GPU a method that waits for the device also waits for steps asked for before it, so that
    its seconds are an upper bound.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inside = [0.0]  # seconds of watched calls, for each watched call that is under way

    def watch(self, thing: Any, methods: Iterable[str]) -> None:
        """Replaces methods of one object by timed ones."""
        for method in methods:
            timed = self._timed(type(thing).__name__, getattr(thing, method))
            setattr(thing, method, timed)

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            self._inside.append(0.0)
            try:
                return method(*args, **kwargs)
            finally:
                elapsed = perf_counter() - start
                self.seconds[name] += elapsed - self._inside.pop()
                self._inside[-1] += elapsed

        return timed


class FirstCallback(Callback):
    """Sees every hook before the run's own callbacks: beginnings."""

    def __init__(self, note: Note) -> None:
        self.note = note
        self.batch_s: list[float] = []  # from one batch's start to the next one's, inside an epoch
        self.validation_began = 0.0
        self._last_start: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The loggers are open."""
        self.note("built")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A batch has come."""
        self.note("first batch")
        now = perf_counter()
        if self._last_start is not None:
            self.batch_s.append(now - self._last_start)
        self._last_start = now

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation begins; the interval between batches that holds it does not count."""
        self.validation_began = perf_counter()
        self._last_start = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Neither does one between epochs."""
        self._last_start = None


class LastCallback(Callback):
    """Sees every hook after the run's own callbacks: ends. Stops the run after some steps."""

    def __init__(self, note: Note, first: FirstCallback, stop_at: int, leave: Note | None) -> None:
        self.note = note
        self.first = first
        self.stop_at = stop_at
        self.leave = leave
        self.num_validations = 0
        self.validation_s = 0.0
        self.num_epochs = 0
        self.num_steps = 0
        self.batches_per_epoch = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Everybody has looked at the untrained model."""
        self.note("looked")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the run when it is time."""
        if trainer.global_step and not self.num_steps and torch.cuda.is_available():
            torch.cuda.synchronize()  # only then is the first step finished
        self.num_steps = trainer.global_step
        self.batches_per_epoch = int(trainer.num_training_batches)
        if not self.num_steps:
            return
        self.note("first step")
        if self.num_steps >= self.stop_at:
            if self.leave is not None:
                self.leave("after the first step")
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts a validation."""
        self.num_validations += 1
        self.validation_s += perf_counter() - self.first.validation_began

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts an epoch, also one that was stopped inside."""
        self.num_epochs += 1


class RunClock:
    """All clocks of a run."""

    def __init__(self, note: Note, stop_at: int, leave: Note | None = None) -> None:
        """Sets the clocks up.

        Args:
            note: Is told of each moment of the start, by its name; repeated ones are its to drop.
            stop_at: Optimiser steps after which the run ends.
            leave: Called instead of ending the run.
        """
        self.note = note
        self.hooks = HookClock()
        self.first = FirstCallback(note)
        self.last = LastCallback(note, self.first, stop_at, leave)

    def hang_on(self, job: ModuleType) -> None:
        """Puts the clocks around what a job's module builds."""
        self._after(job, "open_data", lambda readers: self.note("opened"))
        self._after(job, "make_trainer", self._watch_trainer)
        self._after(fitting, "make_loggers", self._watch_loggers)

    def facts(self) -> dict[str, Any]:
        """What has been counted."""
        last = self.last
        return {
            "hook_s": dict(self.hooks.seconds),
            "batch_s": self.first.batch_s,
            "num_epochs": last.num_epochs,
            "num_steps": last.num_steps,
            "batches_per_epoch": last.batches_per_epoch,
            "num_validations": last.num_validations,
            "validation_s": last.validation_s,
        }

    def _after(self, module: ModuleType, name: str, then: Callable[[Any], None]) -> None:
        function = getattr(module, name)

        @functools.wraps(function)
        def followed(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            then(result)
            return result

        setattr(module, name, followed)

    def _watch_trainer(self, trainer: Any) -> None:
        for callback in trainer.callbacks:
            kind = type(callback)
            hooks = [name for name in dir(kind) if name.startswith(HOOK_PREFIXES)]
            self.hooks.watch(callback, [name for name in hooks if callable(getattr(kind, name))])
        trainer.callbacks.insert(0, self.first)
        trainer.callbacks.append(self.last)

    def _watch_loggers(self, loggers: list[Logger]) -> None:
        for logger in loggers:
            self.hooks.watch(logger, [name for name in LOGGER_METHODS if hasattr(logger, name)])

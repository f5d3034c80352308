"""Shows how far a run is: one line in a terminal, now and then a line in a log file."""

import math
import time
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar

from ssl_swin.display.pace import Clock
from ssl_swin.display.screen import Screen
from ssl_swin.display.words import Part, duration, rate, time_left
from ssl_swin.training.batch_clock import BatchClock

WINDOW_S = 10.0  # that images/s and the wait for data are measured over, at least
LOSS, VAL_LOSS = "train/loss", "val/loss"


class _Speed(NamedTuple):
    images_per_s: float
    waited_ratio: float


class Display(ProgressBar):
    """Shows steps, loss, images/s, the wait for data and the time that is left of the whole run.

    Values are read only when a line is shown: nothing waits for the device in the other steps.
    """

    def __init__(self, every_s: float, clock: Clock = time.monotonic) -> None:
        """Set the pace.

        Args:
            every_s: Longest time between lines where the output is not a terminal.
            clock: Tells the time in seconds.
        """
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._screen: Screen | None = None
        self._enabled = True
        self._batches = BatchClock(clock)
        self._speed: _Speed | None = None
        self._has_window = False
        self._evaluated = 0
        self._val: tuple[str, float] | None = None
        self._total: int | None = None
        self._epoch = 1  # of the last step
        self._step = self._first_step = self._shown_step = -1
        self._first_step_s = 0.0

    def disable(self) -> None:
        """Show nothing, as in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show it again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins, also where a run resumes."""
        self._open(at_once=True)
        self._total = _num_steps(trainer)
        self._step = self._shown_step = trainer.global_step
        self._first_step = -1
        self._batches.go_on()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves out the time since the last epoch."""
        self._batches.go_on()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Measures the wait for data."""
        self._batches.batch_started()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Shows a line after a step, if it is time for one."""
        self._batches.batch_ended()
        self._measure(len(batch.names) * trainer.world_size)
        if trainer.global_step == self._step:
            return
        self._step, self._epoch = trainer.global_step, trainer.current_epoch + 1
        if self._first_step < 0:  # later ones are measured from here: it may take minutes
            self._first_step, self._first_step_s = self._step, self._clock()
        self._show(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Shows how far a validation is."""
        self._show_evaluation(trainer, "validation", trainer.num_val_batches)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts its batches from the first."""
        self._evaluated = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves out its time, and keeps its result."""
        self._batches.go_on()
        if trainer.sanity_checking or not self._enabled:
            return
        values = trainer.callback_metrics  # computed by now, on all devices
        watched = [
            c.monitor for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)
        ]
        name = next((name for name in (*watched, VAL_LOSS) if name in values), None)
        self._val = None if name is None else (name, float(values[name]))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins a test."""
        self._evaluated = 0
        self._open()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Shows how far a test is."""
        self._show_evaluation(trainer, "test", trainer.num_test_batches)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the line off the terminal."""
        self._close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the last step in a file, and takes the line off a terminal."""
        if self._screen is not None and not self._screen.is_terminal:
            if self._shown_step != self._step:
                self._show(trainer, now=True)
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Takes the line off the terminal."""
        self._close()

    def _open(self, *, at_once: bool = False) -> None:
        if self._enabled:
            self._screen = Screen(
                "stdout", most_s=self._every_s, at_once=at_once, clock=self._clock
            )

    def _close(self) -> None:
        if self._screen is not None:
            self._screen.clear()

    def _measure(self, num_images: int) -> None:
        """Take the speed of a window that is long enough; that of the first one as it grows."""
        clock = self._batches
        is_whole = clock.elapsed_s >= WINDOW_S
        if clock.elapsed_s > 0 and (is_whole or not self._has_window):
            images = clock.num_batches * num_images
            self._speed = _Speed(images / clock.elapsed_s, clock.waited_s / clock.elapsed_s)
        if is_whole:
            self._has_window = True
            clock.start_window()

    def _show(self, trainer: Trainer, *, now: bool = False) -> None:
        if self._screen is not None:
            self._screen.show(lambda: self._parts(trainer), self._ratio(), now=now)

    def _show_evaluation(self, trainer: Trainer, name: str, batches: Any) -> None:
        self._evaluated += 1
        if self._screen is None or trainer.sanity_checking:
            return
        total = sum(batches) if isinstance(batches, list) else batches
        doing = Part(f"{name} batch {self._evaluated:,} of {total:,}")
        steps = [] if name == "test" else [self._steps()]
        self._screen.show(lambda: [*steps, doing], self._evaluated / max(1, total))

    def _ratio(self) -> float | None:
        return self._step / self._total if self._total else None

    def _steps(self) -> Part:
        if self._total is None:
            return Part(f"step {self._step:,}")
        return Part(
            f"step {self._step:,} of {self._total:,}", short=f"{self._step:,}/{self._total:,}"
        )

    def _parts(self, trainer: Trainer) -> list[Part]:
        """The facts of a line, in its order."""
        self._shown_step = self._step
        parts = [self._steps()]
        epochs = trainer.max_epochs
        epoch = f"epoch {self._epoch}"
        parts.append(Part(f"{epoch} of {epochs}", keep=5, short=f"{epoch}/{epochs}"))
        loss = trainer.callback_metrics.get(LOSS)
        if isinstance(loss, torch.Tensor):
            parts.append(Part(f"{LOSS} {float(loss):.4g}", keep=1, short=f"loss {float(loss):.3g}"))
        if self._val is not None:
            name, value = self._val
            parts.append(Part(f"{name} {value:.4g}", keep=6))
        if self._speed is not None:
            waited = round(100 * self._speed.waited_ratio)
            parts.append(Part(rate(self._speed.images_per_s, "images"), keep=3))
            parts.append(
                Part(f"waiting for data {waited} %", keep=4, short=f"data wait {waited} %")
            )
        left_s = self._left_s()
        if left_s:
            parts.append(Part(f"{duration(left_s)} left", keep=2))
        return parts

    def _left_s(self) -> float | None:
        """Seconds that the run takes from here, with validations, by what this start of it took."""
        steps, elapsed_s = self._step - self._first_step, self._clock() - self._first_step_s
        return time_left(self._step, self._total, elapsed_s, steps)


def _num_steps(trainer: Trainer) -> int | None:
    """Returns the optimiser steps of the whole run, None if it has no end."""
    ends = []
    batches, epochs = trainer.num_training_batches, trainer.max_epochs or -1
    if epochs > 0 and not math.isinf(batches):
        ends.append(epochs * math.ceil(batches / trainer.accumulate_grad_batches))
    if trainer.max_steps > 0:
        ends.append(trainer.max_steps)
    return min(ends, default=None)

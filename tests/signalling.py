"""A callback that sends real signals to its own process at exact moments of a run."""

import os
import signal
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class SendSignal(Callback):
    """Sends a signal once, where `moment` says."""

    def __init__(self, name: str, moment: str, number: int, rank: int = -1, times: int = 1) -> None:
        """Sets the callback up.

        Args:
            name: Of the signal, as SIGTERM.
            moment: "step", "batch", "validation" or "epoch_end".
            number: Optimiser step, training batch since the start, or validation batch since then.
            rank: The process that gets it; -1 for all.
            times: How often it is sent.
        """
        self.signal = getattr(signal, name)
        self.moment = moment
        self.number = number
        self.rank = rank
        self.times = times
        self.num_validated = 0

    def _at(self, trainer: Trainer, moment: str, number: int) -> None:
        due = moment == self.moment and number == self.number
        if due and self.times and self.rank in (-1, trainer.global_rank):
            for _ in range(self.times):
                os.kill(os.getpid(), self.signal)
            self.times = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._at(trainer, "batch", trainer.current_epoch * trainer.num_training_batches + batch_idx)

    def on_train_batch_end(self, trainer: Trainer, *others: Any) -> None:
        self._at(trainer, "step", trainer.global_step)

    def on_validation_batch_start(self, trainer: Trainer, *others: Any) -> None:
        self._at(trainer, "validation", self.num_validated)
        self.num_validated += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._at(trainer, "epoch_end", trainer.current_epoch)

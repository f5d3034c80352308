"""How far a training is, which every row of metrics says beside its values."""

from dataclasses import dataclass
from typing import Any, Protocol

from lightning.pytorch import Callback, LightningModule, Trainer

SAMPLES_SEEN = "samples_seen"


class Progress(Protocol):
    """What has been done so far."""

    @property
    def step(self) -> int:
        """Number of optimiser steps."""

    @property
    def samples_seen(self) -> int | None:
        """Number of images trained on, on all devices and as often as they were; None of none."""


@dataclass
class StepAt:
    """A step that is set by hand, where nothing is trained."""

    step: int = 0
    samples_seen: int | None = None


def seen(progress: Progress) -> dict[str, float]:
    """Returns what a row says of how far the training is."""
    count = progress.samples_seen
    return {} if count is None else {SAMPLES_SEEN: count}


class TrainingProgress(Callback):
    """Counts images; checkpoints hold the count."""

    def __init__(self) -> None:
        self.samples_seen = 0
        self._trainer: Trainer | None = None

    @property
    def step(self) -> int:
        """Number of optimiser steps that are done."""
        return 0 if self._trainer is None else self._trainer.global_step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the trainer, which counts the steps."""
        self._trainer = trainer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Estimates the count of a run of version 0.1.0, whose checkpoints do not hold it."""
        if not self.samples_seen and trainer.global_step:
            per_batch = trainer.datamodule.batch_size * trainer.world_size  # type: ignore[attr-defined]
            batches = trainer.global_step * trainer.accumulate_grad_batches
            self.samples_seen = batches * per_batch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts a batch of every device."""
        self.samples_seen += len(batch.names) * trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        """The count."""
        return {SAMPLES_SEEN: self.samples_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the count of a checkpoint."""
        self.samples_seen = int(state_dict[SAMPLES_SEEN])

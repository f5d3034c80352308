"""When a run writes a checkpoint."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class StepCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that never saves inside a gradient accumulation.

    Lightning's own forgets, when a run resumes, at which step it saved last, and would save again
    at the next batch although no optimiser step was made; resuming from there loses gradients.

    `monitor` may be "task": the validation metric by which the task under training chooses.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._step_before_batch = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the task's own metric where that is asked for."""
        if self.monitor == "task":
            self.monitor = f"val/{pl_module.model.monitor}"  # type: ignore[union-attr]
        super().setup(trainer, pl_module, stage)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remembers the step."""
        self._step_before_batch = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves if due, and only after a batch that made an optimiser step."""
        if trainer.global_step != self._step_before_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

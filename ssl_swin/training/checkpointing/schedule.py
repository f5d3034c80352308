"""When a run writes a checkpoint."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from ssl_swin.errors import UserError


class StepCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that never saves inside a gradient accumulation.

    Lightning's own forgets, when a run resumes, at which step it saved last, and would save again
    at the next batch although no optimiser step was made; resuming from there loses gradients.

    `monitor` may be "task": the validation metric by which the task under training chooses.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._step_before_batch = 0

    def choose_metric(self, model: Any) -> None:
        """Replace "task" by the metric of the task; `fit` calls this before a file is written.

        Args:
            model: The objective or task under training.

        Raises:
            UserError: If there is no such metric of validation.
        """
        if self.monitor == "task":
            if not hasattr(model, "monitor"):
                raise UserError(f"monitor=task needs a task, {model.title} is none: name a metric")
            self.monitor = f"val/{model.monitor}"
        known = [f"val/{name}" for name in model.new_metrics()]
        if (self.monitor or "").startswith("val/") and self.monitor not in known:
            raise UserError(
                f"there is no metric {self.monitor} to monitor; {model.title} has "
                f"{', '.join(known)}"
            )

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

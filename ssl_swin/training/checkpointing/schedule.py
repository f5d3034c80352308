"""When a run writes a checkpoint."""

import re
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from ssl_swin.arguments import Name, PathName, Positive, Rule, checked
from ssl_swin.errors import UserError

FileName = Annotated[
    str,
    MinLen(1),
    Rule(
        lambda name: bool(re.fullmatch(r"([\w.=-]|\{(step|epoch)(:0?\d+d)?\})+", name)),
        "of letters, digits, _, -, . and = alone, with {step} or {epoch} where wanted",
    ),
]


class StepCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that never saves inside a gradient accumulation.

    Lightning's own forgets, when a run resumes, at which step it saved last, and would save again
    at the next batch although no optimiser step was made; resuming from there loses gradients.

    `monitor` may be "task": the validation metric by which the task under training chooses.
    """

    @checked
    def __init__(
        self,
        *,
        filename: FileName,
        dirpath: PathName,
        monitor: Name | None = None,
        mode: Literal["min", "max"] = "min",
        every_n_epochs: Positive | None = None,
        every_n_train_steps: Positive | None = None,
        save_top_k: Annotated[int, Ge(-1)] = 1,
        **others: Any,
    ) -> None:
        """Set the checkpoint up; what is not listed is as in Lightning's ModelCheckpoint.

        Args:
            filename: Name of the file, without ending; {step} and {epoch} may stand in it.
            dirpath: Folder of the file.
            monitor: Metric by which the best are kept, or "task"; None keeps the newest.
            mode: Whether the metric is better the smaller or the larger it is.
            every_n_epochs: Epochs between checkpoints, or
            every_n_train_steps: optimiser steps between them; with neither, one per validation.
            save_top_k: Number of checkpoints that are kept; -1 keeps all.
            others: Other arguments of ModelCheckpoint.

        Raises:
            UserError: If a value is not allowed, or two contradict each other.
        """
        if every_n_epochs and every_n_train_steps:
            raise UserError(
                f"every_n_epochs={every_n_epochs} and every_n_train_steps={every_n_train_steps} "
                f"of the checkpoint {filename} exclude each other: set one to null, as "
                "callbacks.last.every_n_epochs=null"
            )
        try:
            super().__init__(
                filename=filename,
                dirpath=dirpath,
                monitor=monitor,
                mode=mode,
                every_n_epochs=every_n_epochs,
                every_n_train_steps=every_n_train_steps,
                save_top_k=save_top_k,
                **others,
            )
        except (MisconfigurationException, ValueError, TypeError) as error:
            problem = " ".join(str(error).split())
            raise UserError(f"checkpoint {filename}: {problem}") from error
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
        if self.monitor not in (None, "train/loss", *known):
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

"""When a run writes a checkpoint."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from ssl_swin.arguments import Count, Name, NonNegative, PathName, Positive, Rule, checked
from ssl_swin.errors import UserError
from ssl_swin.runs.retention import Retention
from ssl_swin.training.checkpointing.best import forget_damaged
from ssl_swin.training.checkpointing.io import AtomicCheckpointIO

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
        num_previous: Count = 0,
        previous_min_age_h: NonNegative | None = None,
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
            num_previous: Newest states of a file of one name that are kept besides, as
                FILENAME_STEP.ckpt, to fall back to.
            previous_min_age_h: Keeps one besides that is at least so many hours old; None for none.
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
        self.retention = Retention(num_previous, previous_min_age_h)

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint, which no other file's callback has."""
        return f"{super().state_key[:-1]}, 'filename': {self.filename!r}}}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tells what writes the files which previous states are kept."""
        super().setup(trainer, pl_module, stage)
        kept = self.retention
        if isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO) and (
            kept.num_previous or kept.min_age_h is not None
        ):
            trainer.strategy.checkpoint_io.retain(f"{self.filename}.ckpt", kept)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes up a state by the key that it had in version 0.1.0."""
        states = checkpoint.get("callbacks", {})
        before = states.get(super().state_key)
        if before is not None:
            states.setdefault(self.state_key, before)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the best so far, also where the run's folder was moved."""
        folder, before = Path(self.dirpath or ""), state_dict.get("dirpath")
        if before not in (None, self.dirpath):
            best = state_dict["best_model_path"]
            if not (best and (folder / Path(best).name).exists()):
                return  # the state of another run
            state_dict = _moved(state_dict, str(folder))
        super().load_state_dict(state_dict)

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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds the best checkpoints of a run that goes on damaged now, not after its last step."""
        if self.monitor is not None:
            forget_damaged(trainer, self)

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


def _moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return the state of a checkpoint callback as if its files had been written to a folder."""

    def there(path: str) -> str:
        return str(Path(folder, Path(path).name)) if path else path

    paths = ("best_model_path", "kth_best_model_path", "last_model_path")
    scores = {there(path): score for path, score in state.get("best_k_models", {}).items()}
    moved = {key: there(state[key]) for key in paths if key in state}
    return state | moved | {"dirpath": folder, "best_k_models": scores}

"""What becomes of steps that are not finite: records, a line, a way back, an end."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor

from ssl_swin.arguments import Count, PathName, Positive, checked
from ssl_swin.errors import TrainingGaveUp, UserError
from ssl_swin.files import atomic_path
from ssl_swin.plurals import counted
from ssl_swin.quoting import shell_path
from ssl_swin.runs.skipped_steps import SkippedBatch, SkippedStep, keep_newest
from ssl_swin.training.all_ranks import joined
from ssl_swin.training.health.rollback import roll_back
from ssl_swin.training.module import TrainingModule

MOST_SAID = 5  # steps in a row, and steps of a process, that have a line of their own
WAY_OUT = (
    "Lower optim.base_lr, lengthen the warm-up, or use trainer.precision=bf16-mixed or 32-true"
)
say = rank_zero_only(print)


class SkippedSteps(Callback):
    """Records the steps that the module leaves out, and ends a run of which too many are.

    After some in a row the weights go back to the newest healthy checkpoint, and the run goes on
    with the data that follows; when that has been done often enough, training stops.
    """

    @checked
    def __init__(
        self,
        folder: PathName,
        *,
        checkpoints: PathName,
        max_in_a_row: Positive,
        max_rollbacks: Count,
        max_records: Count,
        max_weights: Count,
    ) -> None:
        """Sets the callback up.

        Args:
            folder: Folder for the records.
            checkpoints: Folder of the checkpoints to go back to.
            max_in_a_row: Steps left out in a row after which the weights go back.
            max_rollbacks: Times in a run that they go back; the next time, training stops.
            max_records: Records that are kept, the newest.
            max_weights: Files with the weights of such steps that are kept, the newest.
        """
        self.folder = Path(folder)
        self.checkpoints = Path(checkpoints)
        self.max_in_a_row = max_in_a_row
        self.max_rollbacks = max_rollbacks
        self.max_records = max_records
        self.max_weights = max_weights
        self._num_rollbacks = 0
        self._went_back_to: int | None = None  # since then no step was made
        self._weights: str | None = None  # file with those of the steps that are being left out
        self._num_said = 0
        self._num_skipped = 0
        self._batches: list[tuple[Any, ...]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remembers the batch; after the last one of a step that was left out, acts on it."""
        assert isinstance(pl_module, TrainingModule)
        places = trainer.datamodule.places_of_batch  # type: ignore[attr-defined]
        self._batches.append((pl_module.random_key, places, batch.names))
        if trainer.global_step == pl_module.random_key[2]:
            return  # inside an accumulation
        batches, self._batches = self._batches, []
        if pl_module.made_step:
            self._went_back_to = self._weights = None
        elif pl_module.num_skipped > self._num_skipped:
            self._num_skipped = pl_module.num_skipped
            self._on_skipped(trainer, pl_module, batches)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Goes on from the module's count."""
        assert isinstance(pl_module, TrainingModule)
        self._num_skipped = pl_module.num_skipped

    def summary(self) -> str:
        """Return how many steps were left out, and where they are recorded; nothing if none."""
        if not self._num_skipped:
            return ""
        back = f", {self._returns}" if self._num_rollbacks else ""
        return f"{counted(self._num_skipped, 'step')} not finite and left out{back}: {self.folder}/"

    @property
    def _returns(self) -> str:
        return f"{counted(self._num_rollbacks, 'return')} to a checkpoint"

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has to know."""
        return {
            "num_rollbacks": self._num_rollbacks,
            "went_back_to": self._went_back_to,
            "weights": self._weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self._num_rollbacks = state_dict["num_rollbacks"]
        self._went_back_to = state_dict["went_back_to"]
        self._weights = state_dict["weights"]

    def _on_skipped(
        self, trainer: Trainer, module: TrainingModule, batches: list[tuple[Any, ...]]
    ) -> None:
        step = trainer.global_step - 1
        everybodys = joined(_described(batches, module))
        reason = _reason(everybodys, module.verdict.gradient_norm)
        self._tell(step, reason, module)
        self._record(trainer, module, step, reason, everybodys)
        if module.skipped_in_a_row >= self.max_in_a_row:
            self._go_back(trainer, module, reason)

    def _tell(self, step: int, reason: str, module: TrainingModule) -> None:
        self._num_said += 1
        if self._num_said > MOST_SAID:
            return
        more = "" if self._num_said < MOST_SAID else "; further ones are counted, not shown"
        say(
            f"step {step:,} left out, {reason}: {module.skipped_in_a_row} in a row, "
            f"{module.num_skipped:,} in all{more}. {self._repeat(step)} repeats it",
            flush=True,
        )

    def _repeat(self, step: int) -> str:
        return f"ssl-swin replay {shell_path(self.folder.parent)} --step {step}"

    def _record(
        self,
        trainer: Trainer,
        module: TrainingModule,
        step: int,
        reason: str,
        batches: list[SkippedBatch],
    ) -> None:
        """Writes the record, and the weights with the first of several; a failure costs no run."""
        if self._weights is None and self.max_weights:
            self._weights = f"weights_{step:07d}.pt"
            self._save_weights(trainer, module, self.folder / self._weights)
        if not (trainer.is_global_zero and self.max_records):
            return
        record = SkippedStep(
            step=step,
            reason=reason,
            weights=self._weights,
            precision=str(trainer.precision),
            loss_scale=module.loss_scale or 1.0,
            batch_size=trainer.datamodule.batch_size,  # type: ignore[attr-defined]
            world_size=trainer.world_size,
            accumulated=trainer.accumulate_grad_batches,
            batches=batches,
            gradient_norm=float(module.verdict.gradient_norm).hex(),
            num_threads=torch.get_num_threads(),
        )
        try:
            record.write(self.folder)
            keep_newest(self.folder, records=self.max_records, weights=self.max_weights)
        except (OSError, UserError) as error:
            say(f"note: step {step} is not recorded: {error}", flush=True)

    def _save_weights(self, trainer: Trainer, module: TrainingModule, path: Path) -> None:
        if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            state = get_model_state_dict(module, options=options)  # all ranks have to take part
        else:
            state = module.state_dict()
        if not trainer.is_global_zero:
            return
        try:
            with atomic_path(path) as temporary:
                torch.save({"state_dict": state, **module.facts()}, temporary)
        except (OSError, UserError, RuntimeError) as error:
            say(f"note: the weights are not kept for a replay: {error}", flush=True)

    def _go_back(self, trainer: Trainer, module: TrainingModule, reason: str) -> None:
        step = trainer.global_step - 1
        problem = (
            f"{module.skipped_in_a_row} steps in a row were not finite, the last at step "
            f"{step:,}: {reason}"
        )
        before = trainer.global_step - module.skipped_in_a_row
        if self._went_back_to is not None:
            before = self._went_back_to - 1  # those weights did not help
        if self._num_rollbacks >= self.max_rollbacks:
            done = f", after {self._returns}"
            raise TrainingGaveUp(self._end(step, problem, done if self._num_rollbacks else ""))
        healthy = roll_back(trainer, module, self.checkpoints, latest_step=before)
        if healthy is None:
            raise TrainingGaveUp(
                self._end(step, problem, f", and {self.checkpoints} has none to go back to")
            )
        self._num_rollbacks += 1
        self._went_back_to, self._weights = healthy, None
        module.skipped_in_a_row = 0
        say(
            f"{problem}: the weights go back to those of step {healthy:,} (return "
            f"{self._num_rollbacks} of {self.max_rollbacks}); the data goes on",
            flush=True,
        )

    def _end(self, step: int, problem: str, done: str) -> str:
        return (
            f"gave up{done}: {problem}. {WAY_OUT}. {self._repeat(step)} repeats it and names the "
            "module"
        )


def _described(batches: list[tuple[Any, ...]], module: TrainingModule) -> list[SkippedBatch]:
    """Returns this rank's batches of the step, with their losses."""
    losses = [float(loss) for loss in module.guard.losses]
    return [
        SkippedBatch(
            rank=module.global_rank,
            number=number,
            loss=loss.hex(),
            random_key=key,
            epoch=place and place.epoch,
            position=place and place.position,
            names=list(names),
            beside=None if beside is None else list(beside),
        )
        for number, ((key, (place, beside), names), loss) in enumerate(
            zip(batches, losses, strict=True)
        )
    ]


def _reason(batches: list[SkippedBatch], norm: torch.Tensor) -> str:
    bad = [batch for batch in batches if not batch.is_finite]
    if bad:
        return f"its loss is {float.fromhex(bad[0].loss)} on rank {bad[0].rank}"
    return f"its gradient norm is {norm.item()}"

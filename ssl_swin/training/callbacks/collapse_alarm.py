"""An alarm when training goes on and nothing is learned any more."""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from ssl_swin.arguments import Above0, Count, NonNegative, PathName, Positive, checked
from ssl_swin.errors import TrainingGaveUp
from ssl_swin.training.health.collapse_signs import CollapseSigns
from ssl_swin.training.health.rollback import roll_back
from ssl_swin.training.module import TrainingModule

SPREAD = "train/rep/std_mean"  # of objectives that log `rep/std_mean`
SHARE = "val/loss_vs_mean"
ADVICE = (
    "The pictures of the run show what is left. Lower optim.base_lr or lengthen the warm-up, and "
    "continue from a checkpoint of before"
)
say = rank_zero_only(print)


class CollapseAlarm(Callback):
    """Warns, stops or goes back when a training has collapsed; logs `health/collapse`, 0 or 1.

    Three things are signs: a loss far above its best with hardly any gradient, features of
    different images that are alike, and a prediction that is no better than the mean.
    """

    @checked
    def __init__(
        self,
        *,
        on_collapse: Literal["warn", "stop", "rollback"],
        checkpoints: PathName,
        every_n_steps: Positive,
        for_steps: Positive,
        loss_factor: Above0,
        gradient_factor: Above0,
        max_loss_vs_mean: Above0,
        min_spread: NonNegative,
        warmup_steps: Count,
        max_rollbacks: Count,
    ) -> None:
        """Sets the alarm up.

        Args:
            on_collapse: "warn" says it once; "stop" ends with exit code 3; "rollback" goes back to
                the newest healthy checkpoint of before, and goes on with the data that follows.
            checkpoints: Folder of the checkpoints to go back to.
            every_n_steps: Optimiser steps between looks; each waits for the device.
            for_steps: Optimiser steps that a sign has to last.
            loss_factor: A loss above this times the best of the run is a sign together with
            gradient_factor: a gradient norm below this times its median.
            max_loss_vs_mean: `val/loss_vs_mean` above which a prediction is no better than the
                mean.
            min_spread: `rep/std_mean` of an objective below which features are alike.
            warmup_steps: Optimiser steps before which spread and prediction are no sign.
            max_rollbacks: Times in a run that it goes back; the next time, training stops.
        """
        self.on_collapse = on_collapse
        self.checkpoints = Path(checkpoints)
        self.every_n_steps = every_n_steps
        self.max_loss_vs_mean = max_loss_vs_mean
        self.warmup_steps = warmup_steps
        self.max_rollbacks = max_rollbacks
        self._signs = CollapseSigns(
            loss_factor=loss_factor,
            gradient_factor=gradient_factor,
            min_spread=min_spread,
            for_steps=for_steps,
        )
        self._in_training = self._in_validation = ""  # what has collapsed, where it shows
        self._learned_until = 0  # last validation that was better than the mean
        self._num_rollbacks = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at a step when it is time."""
        assert isinstance(pl_module, TrainingModule)
        step = trainer.global_step
        made_step = pl_module.made_step and step != pl_module.random_key[2]
        if made_step and step % self.every_n_steps == 0:
            before, self._in_training = self._in_training, self._look(trainer, pl_module)
            if self._in_training and not before:
                since = self._signs.flat_since or self._signs.alike_since or step
                self._act(trainer, pl_module, self._in_training, since)
        pl_module.log("health/collapse", float(self._is_on))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares the validation with that of predicting the mean."""
        share = float(trainer.callback_metrics.get(SHARE, math.nan))
        if trainer.sanity_checking or math.isnan(share):
            return
        before, step = self._in_validation, trainer.global_step
        is_late = step >= self.warmup_steps
        self._in_validation = ""
        if share <= self.max_loss_vs_mean:
            self._learned_until = step
        elif is_late:
            self._in_validation = f"{SHARE} is {share:.4f}: no better than predicting the mean"
        if self._in_validation and not before:
            self._act(trainer, pl_module, self._in_validation, self._learned_until + 1)

    def summary(self) -> str:
        """Return what has collapsed; nothing if all is well."""
        reason = self._in_training or self._in_validation
        return f"the training looks collapsed: {reason}" if reason else ""

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has to know."""
        return {
            "signs": self._signs.state_dict(),
            "in_training": self._in_training,
            "in_validation": self._in_validation,
            "learned_until": self._learned_until,
            "num_rollbacks": self._num_rollbacks,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on watching."""
        self._signs.load_state_dict(state_dict["signs"])
        self._in_training = state_dict["in_training"]
        self._in_validation = state_dict["in_validation"]
        self._learned_until = state_dict["learned_until"]
        self._num_rollbacks = state_dict["num_rollbacks"]

    @property
    def _is_on(self) -> bool:
        return bool(self._in_training or self._in_validation)

    def _look(self, trainer: Trainer, module: TrainingModule) -> str:
        losses = module.guard.losses
        spread = trainer.callback_metrics.get(SPREAD)
        here = torch.zeros(2, device=module.device)
        here[0] = sum(losses, torch.zeros((), device=module.device)) / max(1, len(losses))
        if spread is not None:
            here[1] = spread
        loss, everywhere = trainer.strategy.reduce(here, reduce_op="mean").tolist()
        is_known = spread is not None and trainer.global_step >= self.warmup_steps
        return self._signs.observe(
            trainer.global_step,
            loss=loss,
            gradient_norm=float(module.verdict.gradient_norm),
            spread=everywhere if is_known else None,
        )

    def _act(self, trainer: Trainer, module: LightningModule, reason: str, since: int) -> None:
        """Does what is set; `since` is the first step that is not to be gone back to."""
        problem = f"the training looks collapsed at step {trainer.global_step:,}: {reason}"
        if self.on_collapse == "warn":
            say(f"warning: {problem}. {ADVICE}", flush=True)
            return
        if self.on_collapse == "stop" or self._num_rollbacks >= self.max_rollbacks:
            raise TrainingGaveUp(f"stopped: {problem}. {ADVICE}")
        step = roll_back(trainer, module, self.checkpoints, latest_step=since - 1)
        if step is None:
            raise TrainingGaveUp(
                f"stopped: {problem}; {self.checkpoints} has no healthy checkpoint of before step "
                f"{since:,}. {ADVICE}"
            )
        self._num_rollbacks += 1
        self._in_training = self._in_validation = ""
        self._signs.start_again()
        say(
            f"{problem}: the weights go back to those of step {step:,} (return "
            f"{self._num_rollbacks} of {self.max_rollbacks}); the data goes on",
            flush=True,
        )

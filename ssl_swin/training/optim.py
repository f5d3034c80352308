"""From a recipe to an optimiser with a learning rate per step."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssl_swin.arguments import InnerFraction, Portion, Rate, RateBelow1, RateOr0, checked
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Objective, Progress
from ssl_swin.optim.param_groups import dense_groups, layer_decay_groups, weight_decay_groups
from ssl_swin.optim.schedules import BoundSchedule, RunLength, Schedule, half_cosine, scale_lr


class StepSchedule(LRScheduler):
    """Sets every group's rate from a pure function of the step and the group's base rate.

    As in SimMIM's code, which updates the rate after each step with that step's own number, step i
    runs at the schedule's value for i - 1, and steps 0 and 1 share the first; or with a lag of 0 at
    that for i. Where weight decay has a schedule too, that of the groups whose names do not end in
    "no_decay" follows it.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: BoundSchedule,
        weight_decay: Callable[[int], float] | None = None,
        *,
        lag: int = 1,
    ) -> None:
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.lag = lag
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Rates of the groups for the step to come."""
        return [self.schedule(self._step, float(base_lr)) for base_lr in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Set what the step to come runs at."""
        super().step(epoch)
        if self.weight_decay is None:
            return
        for group in self.optimizer.param_groups:
            if not group["name"].endswith("no_decay"):
                group["weight_decay"] = self.weight_decay(self._step)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers only: the schedules themselves come from the configuration."""
        state = super().state_dict()
        own = ("schedule", "weight_decay", "lag")
        return {name: value for name, value in state.items() if name not in own}

    @property
    def _step(self) -> int:
        return max(0, self.last_epoch - self.lag)


@checked
def pretrain_optimizer(
    model: Objective,
    *,
    schedule: Schedule,
    length: RunLength,
    base_lr: Rate,
    weight_decay: RateOr0,
    betas: tuple[InnerFraction, InnerFraction],
    eps: Portion,
    weight_decay_policy: Literal["official", "intended"],
    layer_decay: Portion | None = None,
    weight_decay_end: RateOr0 | None = None,
) -> OptimizerLRScheduler:
    """AdamW for pretraining.

    Args:
        model: What to train.
        schedule: Schedule of the learning rate.
        length: Length of the run.
        base_lr: Peak learning rate per 512 images; with `layer_decay` that of what is not backbone.
        weight_decay: Weight decay of the decayed parameters.
        betas: AdamW's betas.
        eps: AdamW's eps.
        weight_decay_policy: "official" or "intended", see `param_groups.is_decayed`.
        layer_decay: Factor on the rate per layer towards the input, in (0, 1], for a backbone that
            is pretrained already; None for one rate.
        weight_decay_end: What the weight decay becomes over the run, in half a cosine, as DINO's
            rises (arXiv:2104.14294); None keeps it.
    """
    shared: dict[str, Any] = {
        "lr": scale_lr(base_lr, length.global_batch_size),
        "weight_decay": weight_decay,
        "policy": weight_decay_policy,
    }
    if layer_decay is None:
        groups = weight_decay_groups(model, **shared)
    else:
        groups = layer_decay_groups(model, layer_decay=layer_decay, phase="pretraining", **shared)
    decay = None
    if weight_decay_end is not None:
        decay = partial(_weight_decay_at, weight_decay, weight_decay_end, length)
    return _with_schedule(groups, betas, eps, schedule.bind(length), decay)


@checked
def finetune_optimizer(
    model: Objective,
    *,
    schedule: Schedule,
    length: RunLength,
    base_lr: Rate,
    weight_decay: RateOr0,
    betas: tuple[InnerFraction, InnerFraction],
    eps: Portion,
    layer_decay: Portion,
) -> OptimizerLRScheduler:
    """AdamW with layer-wise learning-rate decay for fine-tuning; see `pretrain_optimizer`."""
    groups = layer_decay_groups(
        model,
        lr=scale_lr(base_lr, length.global_batch_size),
        layer_decay=layer_decay,
        weight_decay=weight_decay,
    )
    return _with_schedule(groups, betas, eps, schedule.bind(length))


@checked
def dense_optimizer(
    model: Objective,
    *,
    schedule: Schedule,
    length: RunLength,
    lr: Rate,
    weight_decay: RateOr0,
    betas: tuple[InnerFraction, InnerFraction],
    eps: Portion,
) -> OptimizerLRScheduler:
    """AdamW of segmentation and detection: one rate, decay by name as in `dense_groups`.

    Args:
        model: What to train.
        schedule: Schedule of the learning rate; step i runs at its value for i.
        length: Length of the run.
        lr: Peak learning rate, whatever the batch.
        weight_decay: Weight decay of the decayed parameters.
        betas: AdamW's betas.
        eps: AdamW's eps.
    """
    groups = dense_groups(model, lr=lr, weight_decay=weight_decay)
    return _with_schedule(groups, betas, eps, schedule.bind(length), lag=0)


@checked
def dense_sgd(
    model: Objective,
    *,
    schedule: Schedule,
    length: RunLength,
    lr: Rate,
    weight_decay: RateOr0,
    momentum: RateBelow1,
) -> OptimizerLRScheduler:
    """SGD of detectors on a ResNet: one rate, decay by name as in `dense_groups`.

    Args:
        model: What to train.
        schedule: Schedule of the learning rate; step i runs at its value for i.
        length: Length of the run.
        lr: Peak learning rate, whatever the batch.
        weight_decay: Weight decay of the decayed parameters.
        momentum: What remains of earlier gradients at a step.
    """
    groups = dense_groups(model, lr=lr, weight_decay=weight_decay)
    optimizer = SGD(groups, momentum=momentum)
    return _at_every_step(StepSchedule(optimizer, schedule.bind(length), lag=0))


def run_length(trainer: Trainer, *, num_batches: int, batch_size: int) -> RunLength:
    """Measures a run before it starts.

    Lightning's own `estimated_stepping_batches` would build the loaders here and then drop the
    position that a resumed loader was given.

    Args:
        trainer: Gives devices, accumulation, limits and epochs.
        num_batches: Training batches of one epoch on one device, unlimited.
        batch_size: Images per device.

    Raises:
        UserError: If the number of epochs, which schedules are as long as, is not set, or an epoch
            would have no batch.
    """
    if not trainer.max_epochs or trainer.max_epochs < 1:
        raise UserError(
            f"trainer.max_epochs must be at least 1, got {trainer.max_epochs}: schedules are as "
            "long as that; trainer.max_steps may end a run earlier"
        )
    limit = trainer.limit_train_batches
    limited = num_limited(num_batches, limit)
    if limited < 1:
        raise UserError(
            f"trainer.limit_train_batches={limit:g} leaves none of the {num_batches} batches of an "
            "epoch: give a number of batches, or a larger fraction"
        )
    accumulated = trainer.accumulate_grad_batches
    return RunLength(
        steps_per_epoch=math.ceil(limited / accumulated),
        num_epochs=trainer.max_epochs,
        global_batch_size=batch_size * trainer.world_size * accumulated,
    )


def progress_at(step: int, length: RunLength) -> Progress:
    """Returns where a run is after so many optimiser steps.

    Args:
        step: Optimiser steps made.
        length: Of the run.
    """
    return Progress(step, length.steps_per_epoch * length.num_epochs, length.steps_per_epoch)


def num_limited(num_batches: int, limit: int | float) -> int:
    """Returns how many batches Lightning's `limit_train_batches` and its like leave.

    Args:
        num_batches: Without the limit.
        limit: A whole number of batches, or a fraction of them.
    """
    return min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)


def _weight_decay_at(start: float, end: float, length: RunLength, step: int) -> float:
    return half_cosine(start, end, step / (length.steps_per_epoch * length.num_epochs))


def _with_schedule(
    groups: list[dict[str, Any]],
    betas: Sequence[float],
    eps: float,
    schedule: BoundSchedule,
    weight_decay: Callable[[int], float] | None = None,
    *,
    lag: int = 1,
) -> OptimizerLRScheduler:
    first, second = betas
    optimizer = AdamW(groups, betas=(first, second), eps=eps, fused=True)
    # A fused AdamW offers to undo fp16's loss scale itself; that would be after the clipping.
    optimizer._step_supports_amp_scaling = False
    return _at_every_step(StepSchedule(optimizer, schedule, weight_decay, lag=lag))


def _at_every_step(scheduler: StepSchedule) -> OptimizerLRScheduler:
    """Return an optimiser and its schedule as Lightning takes them."""
    return {
        "optimizer": scheduler.optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }

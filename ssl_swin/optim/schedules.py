"""Learning rates as pure functions of the optimiser step.

Reference: recipes of SimMIM and Swin Transformer. Every schedule gives an absolute rate. The
warm-up and minimum rates are absolute as well: layer-wise decay scales `base_lr` alone, so a
strongly decayed layer may start above its base rate, as in the original.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ssl_swin.arguments import (
    Above0,
    Count,
    Fraction,
    NonNegative,
    Portion,
    Positive,
    RateOr0,
    checked,
)
from ssl_swin.errors import UserError

BoundSchedule = Callable[[int, float], float]  # (step, scaled base rate) -> rate

REFERENCE_BATCH_SIZE = 512  # the official recipes state their rates per this many images


def scale_lr(lr: float, global_batch_size: int) -> float:
    """Scales a rate given per 512 images linearly to the global batch size."""
    return lr * global_batch_size / REFERENCE_BATCH_SIZE


def half_cosine(start: float, end: float, share: float) -> float:
    """Return what goes from a start to an end in half a cosine.

    Args:
        start: Where no share is done.
        end: Where all is done, and after.
        share: Share that is done, at 0 or above.
    """
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(1.0, share)))


def cosine_lr(
    step: int,
    *,
    base_lr: float,
    warmup_lr: float,
    min_lr: float,
    warmup_steps: int,
    total_steps: int,
    warmup_prefix: bool,
) -> float:
    """Linear warm-up, then half a cosine from `base_lr` to `min_lr`.

    Args:
        step: Optimiser step, from 0.
        base_lr: Peak rate.
        warmup_lr: Rate at step 0.
        min_lr: Rate at `total_steps` and after.
        warmup_steps: Length of the warm-up.
        total_steps: Length of the run, warm-up included.
        warmup_prefix: True starts the cosine where the warm-up ends (Swin Transformer since
            2022-10); False counts it from step 0, so that the rate drops a little at the end of the
            warm-up (SimMIM, and so the published Swin V1 numbers).
    """
    if step < warmup_steps:
        return warmup_lr + step * (base_lr - warmup_lr) / warmup_steps
    offset = warmup_steps if warmup_prefix else 0
    return half_cosine(base_lr, min_lr, (step - offset) / max(1, total_steps - offset))


def multistep_lr(
    step: int,
    *,
    base_lr: float,
    warmup_lr: float,
    warmup_steps: int,
    milestone_steps: Sequence[int],
    gamma: float,
) -> float:
    """Linear warm-up, then `base_lr` times `gamma` once for each milestone reached.

    Raises:
        UserError: If a milestone lies inside the warm-up.
    """
    if milestone_steps and warmup_steps > min(milestone_steps):
        raise UserError(
            f"the warm-up ({warmup_steps} steps) must end before the first milestone "
            f"({min(milestone_steps)} steps)"
        )
    if step < warmup_steps:
        return warmup_lr + step * (base_lr - warmup_lr) / warmup_steps
    return base_lr * gamma ** sum(milestone <= step for milestone in milestone_steps)


def poly_lr(
    step: int,
    *,
    base_lr: float,
    min_lr: float,
    power: float,
    warmup_steps: int,
    warmup_ratio: float,
    total_steps: int,
) -> float:
    """A power of what is left of the run, times a linear warm-up, as mmcv's "poly" with warm-up.

    Args:
        step: Optimiser step, from 0.
        base_lr: Rate that the power starts from.
        min_lr: Rate at `total_steps` and after.
        power: Exponent; 1 is a straight line.
        warmup_steps: Length of the warm-up.
        warmup_ratio: Factor of the warm-up at step 0.
        total_steps: Length of the run, warm-up included.
    """
    left = max(0.0, 1 - step / total_steps)
    rate: float = (base_lr - min_lr) * left**power + min_lr
    return rate * _warmup_factor(step, warmup_steps, warmup_ratio)


def dense_multistep_lr(
    step: int,
    *,
    base_lr: float,
    milestone_steps: Sequence[int],
    gamma: float,
    warmup_steps: int,
    warmup_ratio: float,
) -> float:
    """`base_lr` times `gamma` once for each milestone reached, times a linear warm-up, as mmcv's.

    Args:
        step: Optimiser step, from 0.
        base_lr: Rate until the first milestone.
        milestone_steps: Steps from which on each factor counts.
        gamma: Factor.
        warmup_steps: Length of the warm-up, which may last beyond a milestone.
        warmup_ratio: Factor of the warm-up at step 0.
    """
    rate = base_lr * gamma ** sum(milestone <= step for milestone in milestone_steps)
    return rate * _warmup_factor(step, warmup_steps, warmup_ratio)


def _warmup_factor(step: int, warmup_steps: int, warmup_ratio: float) -> float:
    if step >= warmup_steps:
        return 1.0
    return 1 - (1 - step / warmup_steps) * (1 - warmup_ratio)


@dataclass(frozen=True)
class RunLength:
    """How long a run is, in the units that schedules need."""

    steps_per_epoch: int  # optimiser steps
    num_epochs: int
    global_batch_size: int  # images per optimiser step, over all devices and accumulated batches


class Schedule(ABC):
    """A recipe's schedule of the learning rate, before the length of the run is known."""

    @abstractmethod
    def bind(self, length: RunLength) -> BoundSchedule:
        """Returns the rate as a function of (step, scaled base rate) for a run of this length."""


@checked
@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """`cosine_lr` in the units of a recipe: epochs, and rates per 512 images."""

    warmup_epochs: NonNegative
    warmup_lr: RateOr0
    min_lr: RateOr0
    warmup_prefix: bool

    def bind(self, length: RunLength) -> BoundSchedule:
        """Returns the rate as a function of (step, scaled base rate) for a run of this length."""
        return partial(
            _by_base_lr,
            partial(
                cosine_lr,
                warmup_lr=scale_lr(self.warmup_lr, length.global_batch_size),
                min_lr=scale_lr(self.min_lr, length.global_batch_size),
                warmup_steps=round(self.warmup_epochs * length.steps_per_epoch),
                total_steps=length.num_epochs * length.steps_per_epoch,
                warmup_prefix=self.warmup_prefix,
            ),
        )


@checked
@dataclass(frozen=True)
class MultistepSchedule(Schedule):
    """`multistep_lr` in the units of a recipe: epochs, and rates per 512 images."""

    warmup_epochs: NonNegative
    warmup_lr: RateOr0
    milestone_epochs: Sequence[Above0]
    gamma: Portion

    def bind(self, length: RunLength) -> BoundSchedule:
        """Returns the rate as a function of (step, scaled base rate) for a run of this length."""
        milestones = [round(epoch * length.steps_per_epoch) for epoch in self.milestone_epochs]
        return partial(
            _by_base_lr,
            partial(
                multistep_lr,
                warmup_lr=scale_lr(self.warmup_lr, length.global_batch_size),
                warmup_steps=round(self.warmup_epochs * length.steps_per_epoch),
                milestone_steps=milestones,
                gamma=self.gamma,
            ),
        )


@checked
@dataclass(frozen=True)
class PolySchedule(Schedule):
    """`poly_lr` in the units of the dense recipes: optimiser steps, and absolute rates.

    Attributes:
        power: Exponent.
        min_lr: Rate at the end.
        warmup_steps: Steps of the warm-up.
        warmup_ratio: Factor of the warm-up at the first step.
        total_steps: Steps until `min_lr`; None takes the run's.
    """

    power: NonNegative
    min_lr: RateOr0
    warmup_steps: Count
    warmup_ratio: Fraction
    total_steps: Positive | None = None

    def bind(self, length: RunLength) -> BoundSchedule:
        """Returns the rate as a function of (step, base rate) for a run of this length."""
        return partial(
            _by_base_lr,
            partial(
                poly_lr,
                min_lr=self.min_lr,
                power=self.power,
                warmup_steps=self.warmup_steps,
                warmup_ratio=self.warmup_ratio,
                total_steps=self.total_steps or length.num_epochs * length.steps_per_epoch,
            ),
        )


@checked
@dataclass(frozen=True)
class DenseMultistepSchedule(Schedule):
    """`dense_multistep_lr` in the units of detection's recipes: epochs, and a warm-up in steps.

    Attributes:
        milestone_epochs: Epochs after which the rate falls.
        gamma: What it is multiplied with then.
        warmup_steps: Steps of the warm-up.
        warmup_ratio: Factor of the warm-up at the first step.
    """

    milestone_epochs: Sequence[Above0]
    gamma: Portion
    warmup_steps: Count
    warmup_ratio: Fraction

    def bind(self, length: RunLength) -> BoundSchedule:
        """Returns the rate as a function of (step, base rate) for a run of this length."""
        milestones = [round(epoch * length.steps_per_epoch) for epoch in self.milestone_epochs]
        return partial(
            _by_base_lr,
            partial(
                dense_multistep_lr,
                milestone_steps=milestones,
                gamma=self.gamma,
                warmup_steps=self.warmup_steps,
                warmup_ratio=self.warmup_ratio,
            ),
        )


def _by_base_lr(schedule: Callable[..., float], step: int, base_lr: float) -> float:
    return schedule(step, base_lr=base_lr)

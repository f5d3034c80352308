"""Lightning's Trainer with the types that its settings have in a run."""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

import lightning.pytorch
import torch
from annotated_types import MinLen
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from ssl_swin.arguments import (
    Above0,
    Count,
    Fraction,
    Name,
    NonNegative,
    Portion,
    Positive,
    Rule,
    checked,
)
from ssl_swin.display.pace import MOST_S
from ssl_swin.errors import UserError
from ssl_swin.training.checkpointing.loops import EpochLoop, FitLoop
from ssl_swin.training.display import Display
from ssl_swin.training.half_weights import PRECISION as HALF
from ssl_swin.training.half_weights import HalfWeights
from ssl_swin.training.placement import Placement, launched_placement
from ssl_swin.training.strategy import ShardedStrategy

# The optimiser steps weights of 32 bits in all of them; 16-true, without these, loses updates.
Precision = Literal["32-true", "bf16-mixed", "bf16-true", "16-mixed"]
DECIDED_BY_THE_MACHINE = ("accelerator", "devices", "num_nodes", "strategy", "precision")
TIME_IN_WORDS = "DD:HH:MM:SS, or units as {hours: 11, minutes: 50}, above 0"
Unlimited = Literal[-1]
Devices = Positive | Unlimited | Literal["auto"] | Annotated[list[Count], MinLen(1)]


def seconds_of(max_time: str | Mapping[str, Any]) -> float:
    """Return a time limit in seconds.

    Args:
        max_time: "DD:HH:MM:SS", or units by name, as {hours: 11, minutes: 50}.

    Raises:
        UserError: If it is neither, or not above 0.
    """
    try:
        if isinstance(max_time, str):
            days, hours, minutes, seconds = map(int, max_time.strip().split(":"))
            limit = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        else:
            limit = timedelta(**{str(unit): number for unit, number in max_time.items()})
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"max_time must be {TIME_IN_WORDS}, got {max_time!r}") from error
    if limit <= timedelta(0):
        raise UserError(f"max_time must be {TIME_IN_WORDS}, got {max_time!r}")
    return limit.total_seconds()


def _is_time_limit(max_time: str | Mapping[str, Any]) -> bool:
    try:
        return seconds_of(max_time) > 0
    except UserError:
        return False


TimeLimit = Annotated[
    str | dict[str, Any],
    Rule(_is_time_limit, TIME_IN_WORDS),
]


class Trainer(lightning.pytorch.Trainer):
    """A Trainer that refuses what is no training, or what this machine does not have."""

    @checked
    def __init__(
        self,
        *,
        accelerator: Name = "auto",
        devices: Devices = "auto",
        num_nodes: Positive | Literal["auto"] = "auto",
        strategy: str | Strategy = "auto",
        timeout_s: Positive = 600,
        sharded_checkpoints: bool = False,
        precision: Precision | None = None,
        max_epochs: Positive,
        max_steps: Positive | Unlimited = -1,
        min_epochs: Positive | None = None,
        min_steps: Positive | None = None,
        max_time: TimeLimit | None = None,
        accumulate_grad_batches: Positive = 1,
        gradient_clip_val: NonNegative | None = None,
        limit_train_batches: Positive | Portion = 1.0,
        limit_val_batches: Count | Fraction = 1.0,
        overfit_batches: Count | Fraction = 0,
        check_val_every_n_epoch: Positive = 1,
        val_check_interval: Positive | Portion | None = None,
        num_sanity_val_steps: Count | Unlimited = 0,
        log_every_n_steps: Count = 50,
        enable_progress_bar: bool | None = True,
        progress_every_s: Above0 = MOST_S,
        **others: Any,
    ) -> None:
        """Set the trainer up; what is not listed is as in Lightning.

        Args:
            accelerator: Kind of device, as "cpu" or "gpu"; "auto" takes what there is.
            devices: Number of devices of a node, or their indices; -1 takes all. "auto" takes as
                many as torchrun or srun has started processes, otherwise all.
            num_nodes: Number of nodes; "auto" takes those of torchrun or srun, otherwise one.
            strategy: "ddp" copies the model to every device, "fsdp" divides it (FSDP2); "auto" is
                "ddp" for several devices. Or another strategy of Lightning's.
            timeout_s: Seconds that a process waits for the others before it gives up.
            sharded_checkpoints: Whether, under "fsdp", each process writes its own part of a
                checkpoint into a folder, instead of the first one all of it into a file.
            precision: Number format of the training; None is "32-true". "bf16-true" has weights in
                bfloat16 and float32 copies of them for the optimiser, see `half_weights`.
            max_epochs: Length of the schedules, and of the run.
            max_steps: Optimiser steps after which the run ends earlier; -1 for none.
            min_epochs: Epochs before which nothing else ends the run; None for none.
            min_steps: Optimiser steps before which nothing else ends it; None for none.
            max_time: Time after which it stops, to be continued by the same command: "DD:HH:MM:SS",
                or units by name, as {hours: 11, minutes: 50}.
            accumulate_grad_batches: Batches of an optimiser step.
            gradient_clip_val: Largest norm of the gradient; None does not clip.
            limit_train_batches: Batches of an epoch: a number of them, or a fraction as 0.5.
            limit_val_batches: The same of a validation; 0 leaves it out.
            overfit_batches: The same of batches that are repeated, also for validation; 0 for none.
            check_val_every_n_epoch: Epochs between validations.
            val_check_interval: Batches between validations, or a fraction of an epoch.
            num_sanity_val_steps: Validation batches before the first step; -1 takes all.
            log_every_n_steps: Steps between logged values; 0 logs none.
            enable_progress_bar: Whether to show how far the run is; None does.
            progress_every_s: Longest time in seconds between lines that show it, where the output
                is not a terminal; the first ones come sooner.
            others: Other arguments of Lightning's Trainer.

        Raises:
            UserError: If a value is not allowed, or Lightning refuses it here.
        """
        launched = launched_placement(os.environ) or Placement("auto", 1)
        devices = launched.devices if devices == "auto" else devices
        timeout = timedelta(seconds=timeout_s)
        if strategy == "fsdp":  # Lightning's own of this name is the older FSDP
            strategy = ShardedStrategy(timeout=timeout, sharded_checkpoints=sharded_checkpoints)
            others.setdefault("inference_mode", False)  # what it makes there could not be trained
        elif sharded_checkpoints:
            raise UserError(
                f"sharded_checkpoints=true needs divided weights, got strategy={strategy}: "
                "set trainer=fsdp, or trainer.sharded_checkpoints=false"
            )
        settings: dict[str, Any] = {
            "accelerator": accelerator,
            "devices": devices if isinstance(devices, int | str) else list(devices),
            "num_nodes": launched.num_nodes if num_nodes == "auto" else num_nodes,
            "strategy": strategy,
            "precision": None if precision == HALF else precision,
            "max_epochs": max_epochs,
            "max_steps": max_steps,
            "min_epochs": min_epochs,
            "min_steps": min_steps,
            "accumulate_grad_batches": accumulate_grad_batches,
            "gradient_clip_val": gradient_clip_val,
            "limit_train_batches": limit_train_batches,
            "limit_val_batches": limit_val_batches,
            "overfit_batches": overfit_batches,
            "check_val_every_n_epoch": check_val_every_n_epoch,
            "val_check_interval": val_check_interval,
            "num_sanity_val_steps": num_sanity_val_steps,
            "log_every_n_steps": log_every_n_steps,
            "enable_progress_bar": enable_progress_bar,
        }
        if precision == HALF:
            _check_half(strategy, accumulate_grad_batches)
            plugin = HalfWeights(_device_type(accelerator))
            others["plugins"] = [*_listed(others.get("plugins")), plugin]
        if enable_progress_bar is not False:
            others["callbacks"] = _with_display(others.get("callbacks"), progress_every_s)
        self.max_time_s = None if max_time is None else seconds_of(max_time)
        refusals = (MisconfigurationException, ImportError, ValueError, TypeError, RuntimeError)
        try:
            super().__init__(**settings, **others)
        except refusals as error:
            problem = " ".join(str(error).split()).rstrip("!. ")
            asked = {**settings, **others}
            told = [f"{key}={asked[key]}" for key in DECIDED_BY_THE_MACHINE if key in asked]
            raise UserError(f"{problem}; asked for: {', '.join(told)}") from error
        if hasattr(self.strategy, "_timeout"):
            self.strategy._timeout = timeout
        self._replace_loops()
        self._signal_connector = _NoSignals(self)

    def _replace_loops(self) -> None:
        """Train by loops that go on exactly."""
        given = self.fit_loop
        loop = FitLoop(self, min_epochs=given.min_epochs, max_epochs=given.max_epochs)
        loop.epoch_loop = EpochLoop(self, min_steps=given.min_steps, max_steps=given.max_steps)
        self.fit_loop = loop


def _check_half(strategy: object, accumulate_grad_batches: int) -> None:
    """Refuse what half-precision weights do not go with.

    Raises:
        UserError: If it is so.
    """
    if isinstance(strategy, ShardedStrategy):
        raise UserError(
            f"precision={HALF} does not go with strategy=fsdp: set trainer.precision=bf16-mixed"
        )
    if accumulate_grad_batches > 1:
        raise UserError(
            f"precision={HALF} would add up the gradients of accumulate_grad_batches="
            f"{accumulate_grad_batches} batches in bfloat16: set trainer.precision=bf16-mixed, "
            "which adds them up in float32"
        )


def _device_type(accelerator: object) -> str:
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def _listed(plugins: Any) -> list[Any]:
    return list(plugins) if isinstance(plugins, Sequence) else [plugins] * (plugins is not None)


def _with_display(callbacks: Callback | list[Callback] | None, every_s: float) -> list[Callback]:
    """Add what shows how far the run is, unless there is something of one's own."""
    own = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
    return own if any(isinstance(each, ProgressBar) for each in own) else [*own, Display(every_s)]


class _NoSignals(_SignalConnector):
    """Leaves signals to `ssl_swin.stopping`.

    Lightning's own handlers broadcast and save inside a signal handler, and end with exit code 0.
    """

    def register_signal_handlers(self) -> None:
        """Register none."""

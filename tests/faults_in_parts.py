"""Faults, as in `faults`, of one of the processes that write a checkpoint in parts."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from faults import wrap

from ssl_swin.training.checkpointing import dividing
from ssl_swin.training.module import TrainingModule


@dataclass(frozen=True)
class NotFiniteAtSave:
    """A weight that is not finite in one process's part, in the first checkpoint of a step.

    Attributes:
        step: Number of optimiser steps made.
        rank: Rank whose part it is in.
    """

    step: int
    rank: int

    def __call__(self) -> None:
        """Plant it."""

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(module: TrainingModule, checkpoint: dict[str, Any]) -> None:
                original(module, checkpoint)
                if (module.global_step, module.global_rank) == (self.step, self.rank):
                    parts = (each.to_local() for each in checkpoint["state_dict"].values())
                    next(part for part in parts if part.numel()).fill_(torch.nan)

            return replacement

        wrap(TrainingModule, "on_save_checkpoint", around)


@dataclass(frozen=True)
class BugInPart:
    """An error that is none of the disk while one process reads its first part back.

    Attributes:
        rank: Rank of the process.
    """

    rank: int

    def __call__(self) -> None:
        """Plant it."""

        def around(original: Callable[[Path], str]) -> Callable[[Path], str]:
            def replacement(part: Path) -> str:
                if os.environ["RANK"] == str(self.rank):
                    raise ZeroDivisionError("planted")
                return original(part)

            return replacement

        wrap(dividing, "sum_of", around)

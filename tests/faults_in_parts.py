"""Faults, as in `faults`, of one process of several, and of checkpoints written in parts."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from faults import wrap

from ssl_swin.training.checkpointing import dividing, streaming
from ssl_swin.training.module import TrainingModule


@dataclass(frozen=True)
class OnRank:
    """A fault of one process of several.

    Attributes:
        rank: Its rank.
        fault: What is planted there.
    """

    rank: int
    fault: Callable[[], None]

    def __call__(self) -> None:
        """Plant it."""
        if os.environ.get("RANK", "0") == str(self.rank):
            self.fault()


@dataclass(frozen=True)
class KillInPart:
    """SIGKILL when half of the tensors of this process's n-th part are written.

    Attributes:
        nth: From 1.
    """

    nth: int

    def __call__(self) -> None:
        """Plant it."""
        calls = count(1)

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(items: list[Any], planner: Any) -> Iterator[Any]:
                due = next(calls) == self.nth
                yield from original(items[: len(items) // 2] if due else items, planner)
                if due:
                    os.kill(os.getpid(), signal.SIGKILL)

            return replacement

        wrap(streaming, "_contents", around)


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

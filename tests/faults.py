"""Faults that a test plants in a process which trains, at exactly the moment that it wants.

Each is a small frozen class that can be sent to the process; calling it there plants the fault.
"""

import errno
import io
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop

from ssl_swin.objectives import simmim
from ssl_swin.training.module import TrainingModule


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wrap(owner: Any, name: str, around: Callable[[Callable[..., Any]], Any]) -> None:
    """Put something in the place of a function.

    Args:
        owner: The class or module that has it.
        name: Of the function.
        around: Given the function, returns what replaces it.
    """
    setattr(owner, name, around(getattr(owner, name)))


@dataclass(frozen=True)
class AtBatch:
    """Something that happens before the n-th batch of a kind in this process.

    Attributes:
        happens: What, as `partial(shutil.rmtree, folder)`.
        nth: From 1.
        step: "training_step" or "validation_step".
    """

    happens: Callable[[], None]
    nth: int
    step: str = "training_step"

    def __call__(self) -> None:
        """Plant it."""
        calls = count(1)

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(module: TrainingModule, *args: Any) -> Any:
                if next(calls) == self.nth:
                    self.happens()
                return original(module, *args)

            return replacement

        wrap(TrainingModule, self.step, around)


@dataclass(frozen=True)
class SignalAtBatch:
    """A signal to the own process before the n-th batch of a kind in this process.

    Attributes:
        number: SIGKILL, SIGTERM, ...
        nth: From 1.
        step: "training_step" or "validation_step".
    """

    number: int
    nth: int
    step: str = "training_step"

    def __call__(self) -> None:
        """Plant it."""
        AtBatch(lambda: os.kill(os.getpid(), self.number), self.nth, self.step)()


@dataclass(frozen=True)
class KillAtValidation:
    """SIGKILL before the n-th validation of this process begins, or as soon as it has ended.

    Attributes:
        nth: From 1.
        after: Whether it has ended, and nothing has followed yet.
    """

    nth: int
    after: bool

    def __call__(self) -> None:
        """Plant it."""
        calls = count(1)

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(loop: _EvaluationLoop) -> Any:
                due = next(calls) == self.nth
                if due and not self.after:
                    _die()
                measured = original(loop)
                if due:
                    _die()
                return measured

            return replacement

        wrap(_EvaluationLoop, "run", around)


@dataclass(frozen=True)
class KillAtRename:
    """SIGKILL when the n-th file of a name gets its final name in this process.

    Attributes:
        name: Name of the file.
        nth: From 1.
        after: Whether the file has its name already.
    """

    name: str
    nth: int
    after: bool

    def __call__(self) -> None:
        """Plant it."""
        calls = count(1)

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(source: Any, target: Any, **options: Any) -> None:
                due = Path(target).name == self.name and next(calls) == self.nth
                if due and not self.after:
                    _die()
                original(source, target, **options)
                if due:
                    _die()

            return replacement

        wrap(os, "replace", around)


@dataclass(frozen=True)
class KillAfterSaveOfStep:
    """SIGKILL as soon as last.ckpt holds a multiple of a number of steps.

    Attributes:
        steps: As the steps of an epoch.
    """

    steps: int

    def __call__(self) -> None:
        """Plant it."""
        saved: list[int] = [-1]

        def noting(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(module: TrainingModule, checkpoint: dict[str, Any]) -> None:
                saved[0] = module.global_step
                original(module, checkpoint)

            return replacement

        def killing(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(source: Any, target: Any, **options: Any) -> None:
                original(source, target, **options)
                if Path(target).name == "last.ckpt" and saved[0] % self.steps == 0:
                    _die()

            return replacement

        wrap(TrainingModule, "on_save_checkpoint", noting)
        wrap(os, "replace", killing)


@dataclass(frozen=True)
class KillInWrite:
    """SIGKILL when half of the n-th checkpoint of this process is written.

    Attributes:
        nth: From 1.
    """

    nth: int

    def __call__(self) -> None:
        """Plant it."""
        calls = count(1)

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(content: Any, file: Any, *args: Any, **options: Any) -> None:
                if next(calls) == self.nth:
                    whole = io.BytesIO()
                    original(content, whole, *args, **options)
                    _write(file, whole.getvalue()[: whole.tell() // 2])
                    _die()
                original(content, file, *args, **options)

            return replacement

        wrap(torch, "save", around)


def _write(file: Any, content: bytes) -> None:
    if isinstance(file, str | os.PathLike):
        Path(file).write_bytes(content)
    else:
        file.write(content)
        getattr(file, "flush", int)()


@dataclass(frozen=True)
class FullDisk:
    """No file can become larger than this, as if the disk had no space left.

    Attributes:
        limit_bytes: More than the small files of a run, less than a checkpoint.
    """

    limit_bytes: int

    def __call__(self) -> None:
        """Plant it."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit_bytes, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class UsedUpQuota:
    """No file of this size or more is taken, which is told when it is synced, as NFS does.

    Attributes:
        limit_bytes: More than the small files of a run, less than a checkpoint.
    """

    limit_bytes: int

    def __call__(self) -> None:
        """Plant it."""

        def around(original: Callable[[int], None]) -> Callable[[int], None]:
            def replacement(descriptor: int) -> None:
                if os.fstat(descriptor).st_size >= self.limit_bytes:
                    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
                original(descriptor)

            return replacement

        wrap(os, "fsync", around)


@dataclass(frozen=True)
class NotANumber:
    """A loss that is not a number at one step, on one rank.

    Attributes:
        step: Number of optimiser steps made before it.
        rank: Rank that computes it.
    """

    step: int
    rank: int = 0

    def __call__(self) -> None:
        """Plant it."""

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(module: TrainingModule, *args: Any) -> Any:
                loss = original(module, *args)
                is_here = (module.global_step, module.global_rank) == (self.step, self.rank)
                return loss * torch.nan if is_here else loss

            return replacement

        wrap(TrainingModule, "training_step", around)


@dataclass(frozen=True)
class BugInForward:
    """An error in the midst of a forward pass of SimMIM."""

    def __call__(self) -> None:
        """Plant it."""

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(*args: Any) -> Any:
                raise ZeroDivisionError("planted")

            return replacement

        wrap(simmim, "masked_l1", around)


@dataclass(frozen=True)
class Together:
    """Several faults."""

    faults: tuple[Callable[[], None], ...]

    def __call__(self) -> None:
        """Plant them."""
        for fault in self.faults:
            fault()

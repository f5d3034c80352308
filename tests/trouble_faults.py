"""Faults that only the page of captured messages needs; each can be sent to another process."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from faults import SignalAtBatch, wrap

from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.training import probed_features
from ssl_swin.training.module import TrainingModule


@dataclass(frozen=True)
class Environment:
    """Variables of the process's environment.

    Attributes:
        variables: By name.
    """

    variables: dict[str, str]

    def __call__(self) -> None:
        """Set them."""
        os.environ.update(self.variables)


@dataclass(frozen=True)
class WithoutPackage:
    """Packages that cannot be imported.

    Attributes:
        names: Theirs.
    """

    names: tuple[str, ...]

    def __call__(self) -> None:
        """Hide them."""
        sys.modules.update(dict.fromkeys(self.names))  # type: ignore[arg-type]


@dataclass(frozen=True)
class FailingExtras:
    """Pictures and probes that fail."""

    def __call__(self) -> None:
        """Plant it."""

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(*args: Any, **others: Any) -> Any:
                raise ZeroDivisionError("planted")

            return replacement

        wrap(SimMIM, "figure", around)
        wrap(probed_features, "pooled", around)


@dataclass(frozen=True)
class NotANumberFrom:
    """A loss that is not a number from some step on.

    Attributes:
        step: Number of optimiser steps made before it.
    """

    step: int

    def __call__(self) -> None:
        """Plant it."""

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(module: TrainingModule, *args: Any) -> Any:
                loss = original(module, *args)
                return loss * torch.nan if module.global_step >= self.step else loss

            return replacement

        wrap(TrainingModule, "training_step", around)


@dataclass(frozen=True)
class CtrlCWhileSaving:
    """A Ctrl-C before the n-th batch, and another one while the disk takes its time.

    Attributes:
        nth: From 1.
    """

    nth: int

    def __call__(self) -> None:
        """Plant it."""
        from ssl_swin.training.checkpointing import writing

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(path: Any) -> None:
                time.sleep(0.3)  # two that come together are one
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(60)

            return replacement

        SignalAtBatch(signal.SIGINT, self.nth)()
        wrap(writing, "fsync", around)

"""How a run ends before its end."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

TIME_LIMIT = 75  # exit code of a run that reached trainer.max_time
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")  # the first process has none above 0


def _nothing() -> None:
    """Nothing is to be done."""


class RunStopped(SystemExit):
    """A run was told to stop before its end; started again in the same way, it goes on.

    Attributes:
        status: Exit code: 128 + the number of the signal, or `TIME_LIMIT`.
        saved: Checkpoint with the state at which it stopped; None if there was nothing to save.
        step: Optimiser steps done by then.
        between_steps: Whether weights and optimiser are those after a step, so may be saved.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
        self.saved: Path | None = None
        self.step = 0
        self.between_steps = False
        self.is_told = False  # whether the user knows
        self.let_others_go: Callable[[], None] = _nothing  # when the first process is done

    @property
    def reason(self) -> str:
        """What stopped the run, in words."""
        if self.status == TIME_LIMIT:
            return "trainer.max_time"
        number = self.status - 128
        return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name

    @property
    def by_keyboard(self) -> bool:
        """Whether a Ctrl-C stopped it."""
        return self.status == 128 + signal.SIGINT

    @property
    def by_scheduler(self) -> bool:
        """Whether a signal stopped it that a scheduler sends, not a person at the keyboard."""
        return self.status != TIME_LIMIT and not self.by_keyboard


class PeerLostError(RuntimeError):
    """Another process of the run is gone, so that this one cannot go on."""


def in_words(stopped: RunStopped) -> str:
    """Return what stopped a run, and where its state is.

    Args:
        stopped: How it ended.
    """
    if stopped.saved is None:
        return f"stopped by {stopped.reason}; there was nothing new to save"
    return f"stopped by {stopped.reason} after step {stopped.step:,}, saved in {stopped.saved}"


def is_first_by_environment() -> bool:
    """Return False in the other processes of a distributed run, as launchers mark them."""
    return not any(os.environ.get(name, "0").strip("0") for name in RANKS)

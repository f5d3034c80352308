"""The processes of a run: what they decide together, and what is said when one is missing."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from ssl_swin.stopping.stopped import PeerLostError

LATE_AFTER_S = 10.0  # then it is said for whom a run waits
LOST = re.compile(
    r"connection (closed|reset)|broken pipe|socket (closed|error)|gloo|remote process exited|"
    r"timed out waiting|application timeout|failed to (recv|send)|store is (closed|null)|"
    r"NCCL communicator was aborted|unhandled system error",
    re.IGNORECASE,
)


class Peers:
    """Numbers that the processes of a run agree on, without any work of their devices."""

    def __init__(self, timeout: timedelta | None = None) -> None:
        """Connect the processes, as soon as there is more than one; all must do so together.

        Args:
            timeout: How long one waits for the others before it gives up; None is torch's own.
        """
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._group: torch.distributed.ProcessGroup | None = None
        if distributed and torch.distributed.get_world_size() > 1:
            group = torch.distributed.new_group(backend="gloo", timeout=timeout)
            assert isinstance(group, torch.distributed.ProcessGroup)
            self._group = group

    def largest(self, number: int) -> int:
        """Return the largest of everybody's numbers."""
        return self._reduced(number, torch.distributed.ReduceOp.MAX)

    def smallest(self, number: int) -> int:
        """Return the smallest of everybody's numbers."""
        return self._reduced(number, torch.distributed.ReduceOp.MIN)

    def _reduced(self, number: int, operation: "torch.distributed.ReduceOp.RedOpType") -> int:
        if self._group is None:
            return number
        cell = torch.tensor([number])
        torch.distributed.all_reduce(cell, op=operation, group=self._group)
        return int(cell)

    def wait(self) -> None:
        """Return when everybody calls this, or is gone."""
        with suppress(RuntimeError):
            self.largest(0)


def is_lost_peer(error: Exception) -> bool:
    """Return whether an error of a run of several processes says that another one is gone."""
    return isinstance(error, RuntimeError) and LOST.search(str(error)) is not None


@contextmanager
def naming_lost_peers(trainer: Trainer) -> Iterator[None]:
    """Turn what a communication library raises into one sentence.

    Args:
        trainer: The trainer that runs inside.

    Raises:
        PeerLostError: If another process of the run has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if trainer.world_size == 1 or not is_lost_peer(error):
            raise
        raise PeerLostError(
            f"process {trainer.global_rank} of {trainer.world_size} lost another one, so the run "
            "ends; why that one ended is what it printed itself, or its scheduler's log "
            "(killed, out of memory, node lost)"
        ) from error


class TellWhoIsLate(Callback):
    """Says for whom this process waits, if the others do not come soon."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    @contextmanager
    def watching(self, trainer: Trainer) -> Iterator[None]:
        """Watch how the processes are connected.

        Args:
            trainer: The trainer that connects them inside, and has this callback.
        """
        if trainer.world_size > 1:
            self._timer = threading.Timer(LATE_AFTER_S, lambda: _say(_who_is_late(trainer)))
            self._timer.daemon = True
            self._timer.start()
        try:
            yield
        finally:
            self._all_here()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """All are there."""
        self._all_here()

    def _all_here(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _say(text: str) -> None:
    print(text, flush=True)  # also where this is not the first process


def _who_is_late(trainer: Trainer) -> str:
    own, number = trainer.global_rank, trainer.world_size
    others = [rank for rank in range(number) if rank != own]
    shown = ", ".join(map(str, others[:8])) + (", ..." if len(others) > 8 else "")
    address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    return (
        f"process {own} of {number} waits at {address} for processes {shown}: not all have "
        f"started. {number} processes follow from trainer.num_nodes={trainer.num_nodes} times "
        f"{number // trainer.num_nodes} devices; WORLD_SIZE is "
        f"{os.environ.get('WORLD_SIZE', 'not set')}. Start them all, or run on one: "
        "trainer.num_nodes=1 trainer.devices=1"
    )

"""What the ranks of a run tell each other."""

import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed

from ssl_swin.errors import UserError
from ssl_swin.training.peers import is_lost_peer

T = TypeVar("T")


class FailedTogetherError(UserError):
    """Something that all ranks did together failed on one of them."""


def joined(parts: list[T]) -> list[T]:
    """Returns the lists of all ranks as one, in the order of the ranks.

    Args:
        parts: This rank's; every rank has to call.
    """
    if not torch.distributed.is_initialized():
        return parts
    everybodys: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everybodys, parts)
    return [part for somebodys in everybodys for part in somebodys]


def done_by_all(action: Callable[[], T]) -> list[T]:
    """Returns what an action gives on every rank, in the order of the ranks.

    Args:
        action: This rank's; every rank has to call. What it gives is sent to the others.

    Raises:
        FailedTogetherError: On all ranks, if it failed on one of them. Outside of a run of several
            ranks, its own error is raised.
    """
    done: list[T] = []
    failure: Exception | None = None
    try:
        done = [action()]
    except Exception as error:
        if not torch.distributed.is_initialized() or is_lost_peer(error):
            raise
        failure = error
    own = [(done, "" if failure is None else _told(failure))]
    everybodys = joined(own)
    for rank, (_, problem) in enumerate(everybodys):
        if problem:
            first, _, whole = problem.partition("\n")
            together = FailedTogetherError(f"on process {rank}: {first}")
            together.add_note(whole)
            raise together from failure
    return [each for given, _ in everybodys for each in given]


def _told(error: Exception) -> str:
    said = " ".join(str(error).split())
    first = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return "\n".join([first, *traceback.format_exception(error)])

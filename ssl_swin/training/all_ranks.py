"""What the ranks of a run tell each other."""

from typing import Any, TypeVar

import torch.distributed

T = TypeVar("T")


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

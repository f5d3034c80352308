"""Whether the numbers in a checkpoint are numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_swin.divided_checkpoint import Scattered

# Scores of the best epoch begin at infinity, progress and schedules hold no weights.
NOT_WEIGHTS = frozenset({"callbacks", "loops", "lr_schedulers"})
MOST_NAMED = 3


def non_finite(checkpoint: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of the tensors of a checkpoint that hold NaN or infinity.

    Weights, averages of them, momentum encoders and the state of optimisers are looked at, wherever
    they stand; what callbacks, loops and schedules keep is not.

    Args:
        checkpoint: As a trainer saves it, or any nested mapping of tensors, such as a `state_dict`.
    """
    parts = {name: part for name, part in checkpoint.items() if name not in NOT_WEIGHTS}
    return [name for name, tensor in _tensors(parts, "") if not _is_finite(tensor)]


def in_short(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are.

    Args:
        names: Names of tensors.
    """
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _tensors(part: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield name, part
    elif isinstance(part, Scattered):
        yield name, part.whole()
    elif isinstance(part, Mapping):
        for key, value in part.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(part, list | tuple):
        for index, value in enumerate(part):
            yield from _tensors(value, f"{name}.{index}")


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool(torch.isfinite(tensor.detach()).all())

"""`trainer.precision=bf16-true`: weights in bfloat16, float32 copies of them for the optimiser.

What Apex called O2, in bfloat16. Forward and backward pass see the matrices of linear layers and
convolutions in bfloat16, in which autocast would compute them anyway; norms, biases, tables,
teachers and statistics stay in float32. The optimiser steps a float32 copy of each matrix, its
master, since an update that is small beside its weight is lost in bfloat16's eight bits. Whatever
reads or writes the weights of a module as a `state_dict`, as checkpoints and exports do, meets the
masters: a run may go on in another precision, and what it hands on is in float32.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn

PRECISION = "bf16-true"
_MASTER = "master"  # attribute of a parameter
_HALVED = (nn.Linear, nn.Conv2d)
_IN_FLOAT32 = "cpb_mlp"  # of Swin V2: computed outside autocast, whose input is in float32


class HalfWeights(MixedPrecision):
    """Lightning's part of it: converts a module, and computes the rest under autocast."""

    def __init__(self, device: str) -> None:
        """Set it up.

        Args:
            device: Type of the device that computes, "cpu" or "cuda".
        """
        super().__init__("bf16-mixed", device)
        self.precision = PRECISION  # type: ignore[assignment]

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Halve the matrices that are trained."""
        halve(module)
        return module

    def autocast_context_manager(self) -> torch.autocast:
        """Return the context of the forward pass."""
        return torch.autocast(self.device, dtype=torch.bfloat16, cache_enabled=False)


@torch.no_grad()
def halve(module: nn.Module) -> None:
    """Put the matrices that are trained into bfloat16, and keep their masters.

    Args:
        module: Its parameters stay the same objects; those halved before are left alone.
    """
    for name, part in module.named_modules():
        weight = getattr(part, "weight", None)
        if not isinstance(part, _HALVED) or not isinstance(weight, nn.Parameter):
            continue
        if _IN_FLOAT32 in name.split("."):
            continue
        if weight.requires_grad and weight.dtype == torch.float32:
            setattr(weight, _MASTER, nn.Parameter(weight.detach().clone()))
            weight.data = weight.detach().to(torch.bfloat16)
            part.register_state_dict_post_hook(_show_master)  # type: ignore[no-untyped-call]
            part.register_load_state_dict_pre_hook(_load_master)  # type: ignore[no-untyped-call]


def master_of(parameter: nn.Parameter) -> nn.Parameter:
    """Return what the optimiser steps for a parameter: its master, on its device, or itself."""
    master: nn.Parameter | None = getattr(parameter, _MASTER, None)
    if master is None:
        return parameter
    master.data = master.data.to(parameter.device)
    return master


def step_masters(optimizer: Any) -> None:
    """Let an optimiser that has made no step have masters in the place of what was halved.

    Args:
        optimizer: Of torch's kind; others are left alone.
    """
    for group in getattr(optimizer, "param_groups", ()):
        group["params"] = [*map(master_of, group["params"])]


def with_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[nn.Parameter]:
    """Yield what has a gradient; that of a halved parameter moves to its master, in float32.

    Args:
        parameters: Of a module, after the backward pass.
    """
    for parameter in parameters:
        if parameter.grad is None:
            continue
        master = master_of(parameter)
        if master is not parameter:
            master.grad, parameter.grad = parameter.grad.to(master.dtype), None
        yield master


@torch.no_grad()
def follow_masters(parameters: Iterable[nn.Parameter]) -> None:
    """Round the masters to the parameters, after a step.

    Args:
        parameters: Of a module.
    """
    for parameter in parameters:
        master = master_of(parameter)
        if master is not parameter:
            parameter.copy_(master)


def _show_master(part: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    weight = part.weight
    assert isinstance(weight, nn.Parameter)
    state[f"{prefix}weight"] = master_of(weight).detach()


@torch.no_grad()
def _load_master(part: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    given, weight = state.get(f"{prefix}weight"), part.weight
    assert isinstance(weight, nn.Parameter)
    if isinstance(given, Tensor) and given.shape == weight.shape:
        master_of(weight).copy_(given)

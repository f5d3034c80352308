"""Faster ways to compute a layer than calling it, and when they may be taken."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Returns whether nobody could tell that a layer is computed from its weights, not called.

    A hook, on this layer or on all modules, or another class, as a parametrisation, an adapter or a
    sharded layer has, means that it must be called.

    Args:
        layer: The layer.
        kind: The class whose forward pass is known.
    """
    if type(layer) is not kind or any(getattr(layer, hooks) for hooks in _HOOKS):
        return False
    return not nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]


def gelu_linear(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer on GELU(hidden), which is computed again for the backward pass, not kept.

    Of what a Swin block keeps, a quarter is that activation; computing it costs a hundredth.

    Args:
        hidden: (..., D), in the dtype of the product: under autocast the lower one.
        weight: (out, D).
        bias: (out,).

    Returns:
        (..., out), in the dtype of `hidden`.
    """
    product: Tensor = _GeluLinear.apply(hidden, weight.to(hidden.dtype), bias.to(hidden.dtype))
    return product


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(F.gelu(hidden), weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        hidden, weight, _ = inputs
        ctx.save_for_backward(hidden, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        hidden, weight = ctx.saved_tensors
        grad = grads[0].flatten(0, -2)
        activated = F.gelu(hidden).flatten(0, -2)
        through = (grad @ weight).view_as(hidden)
        through = torch.ops.aten.gelu_backward(through, hidden)
        return through, grad.t() @ activated, grad.sum(0)

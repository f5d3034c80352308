"""The second half of an MLP that keeps less for the backward pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


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

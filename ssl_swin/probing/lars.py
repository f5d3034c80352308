"""LARS, the large-batch optimiser of linear probing."""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

from ssl_swin.errors import UserError


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step for each matrix is scaled to the size of that matrix.

    LARS (arXiv:1708.03888) in the variant of the MAE linear-probe recipe. For a parameter with
    more than one axis

        g <- grad + weight_decay * p,    g <- trust_coefficient * |p| / |g| * g

    (no scaling where either norm is zero); biases and other parameters of at most one axis take
    the plain gradient, without decay. Then, for all, m <- momentum * m + g and p <- p - lr * m:
    the buffer holds the scaled gradient and `lr` acts only when the parameter is updated.

    Args:
        params: Parameters, or groups of them with their own settings.
        lr: Learning rate, absolute; at least 0.
        momentum: Decay of the momentum buffer, in [0, 1).
        weight_decay: L2 penalty on matrices, at least 0.
        trust_coefficient: Length of a matrix's scaled gradient relative to the matrix; above 0.

    Raises:
        UserError: If a setting is outside its range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        if not lr >= 0:
            raise UserError(f"LARS needs lr >= 0, not {lr}")
        if not 0 <= momentum < 1:
            raise UserError(f"LARS needs a momentum in [0, 1), not {momentum}")
        if not weight_decay >= 0:
            raise UserError(f"LARS needs weight_decay >= 0, not {weight_decay}")
        if not trust_coefficient > 0:
            raise UserError(f"LARS needs trust_coefficient > 0, not {trust_coefficient}")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
        }
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates every parameter that has a gradient; returns the closure's loss, if given one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if parameter.ndim > 1:
            decayed = gradient.add(parameter, alpha=group["weight_decay"])
            gradient = decayed * _trust_ratio(parameter, decayed, group["trust_coefficient"])
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer = state["momentum_buffer"]
        buffer.mul_(group["momentum"]).add_(gradient)
        parameter.add_(buffer, alpha=-group["lr"])


def _trust_ratio(parameter: Tensor, gradient: Tensor, trust_coefficient: float) -> Tensor:
    parameter_norm, gradient_norm = parameter.norm(), gradient.norm()
    ratio = trust_coefficient * parameter_norm / gradient_norm
    # torch.where instead of `if`: no copy from the device in every step
    return torch.where((parameter_norm > 0) & (gradient_norm > 0), ratio, 1.0)

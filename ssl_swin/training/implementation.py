"""Which of torch's implementations of AdamW makes the steps, also of a run that is continued."""

from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from ssl_swin.encoders.kernels import Optimizer as Kernel


def implement(optimizer: AdamW, kernel: Kernel) -> None:
    """Lets an AdamW step by an implementation; the numbers are equal to rounding.

    Groups of a checkpoint name the implementation that it was written with, so it is set again
    after loading.

    Args:
        optimizer: With or without a state.
        kernel: "fused", one kernel for each list of tensors, or "foreach", one for each operation.
    """
    _set(optimizer, kernel)
    optimizer.register_load_state_dict_post_hook(lambda loaded: _set(loaded, kernel))


def _set(optimizer: Optimizer, kernel: Kernel) -> None:
    is_fused = kernel == "fused"
    for group in optimizer.param_groups:
        group["fused"], group["foreach"] = is_fused, not is_fused
        for parameter in group["params"]:
            _place_step(optimizer.state.get(parameter, {}), parameter, is_fused=is_fused)


def _place_step(state: dict[str, Any], parameter: torch.Tensor, *, is_fused: bool) -> None:
    """Moves the number of steps to where it is read: by a fused one on the device, else here."""
    if "step" in state:
        device = parameter.device if is_fused else torch.device("cpu")
        state["step"] = state["step"].to(device, torch.float32)

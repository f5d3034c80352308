"""Gradients clipped by their global norm."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ssl_swin.training.sharding import full

_ADDED = 1e-6  # by torch, to the norm that it divides by


def clip_gradients(parameters: Sequence[nn.Parameter], largest_norm: float | None) -> Tensor:
    """Scale gradients down to a global L2 norm, bit for bit as torch's `clip_grad_norm_` does.

    Gradients within it are left alone where that is known without waiting: on a CPU, and everywhere
    if nothing is clipped. torch multiplies them by 1, one more pass over all of them.

    Args:
        parameters: What has a gradient.
        largest_norm: What their norm may be; None does not clip.

    Returns:
        The norm before clipping, a scalar.
    """
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    whole: Tensor = full(norm)
    if largest_norm is None or (whole.device.type == "cpu" and whole + _ADDED <= largest_norm):
        return whole
    clip_grads_with_norm_(parameters, largest_norm, norm)
    return whole

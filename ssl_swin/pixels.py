"""Between raw pixels and what the model sees (L0).

`pixels` are uint8 (B, C, H, W) and stay so up to the device; `images` are float, normalised per
channel by the mean and standard deviation of values in [0, 1].
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def normalize(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turns raw pixels into model input: `(pixels / 255 - mean) / std`.

    Args:
        pixels: uint8 (..., C, H, W).
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].

    Returns:
        float32, same shape and device.
    """
    scale, shift = _channels(std, pixels), _channels(mean, pixels)
    return (pixels.float().div_(255) - shift) / scale


def denormalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Inverts `normalize`, rounding to the nearest level and clipping to [0, 255].

    Args:
        images: float (..., C, H, W).
        mean: As given to `normalize`.
        std: As given to `normalize`.

    Returns:
        uint8, same shape and device.
    """
    values = images.float() * _channels(std, images) + _channels(mean, images)
    return (values * 255).round_().clamp_(0, 255).to(torch.uint8)


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).view(-1, 1, 1)

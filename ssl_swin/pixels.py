"""Between raw pixels and what the model sees.

`pixels` are uint8, uint16 or float32 (B, C, H, W) and stay so up to the device; `images` are float,
normalised per channel by the mean and standard deviation of *values*: integers over their full
scale, in [0, 1], and floats as they are.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_swin.errors import UserError

_FULL_SCALE = {torch.uint8: 255, torch.uint16: 65535}
# No images vary less: a tenth of a level, and what float32 divides by without overflow.
_LEAST_STD = {"uint8": 0.1 / 255, "uint16": 0.1 / 65535, "float32": 1e-30}


def normalize(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turns raw pixels into model input: `(value - mean) / std`.

    Args:
        pixels: uint8 (value: level / 255), uint16 (level / 65535) or float32 (as it is),
            (..., C, H, W).
        mean: Of values, per channel.
        std: Of values, per channel.

    Returns:
        float32, same shape and device.

    Raises:
        UserError: If there is not one mean and one deviation per channel.
    """
    scale, shift = _channels(std, pixels), _channels(mean, pixels)
    values = pixels.float()
    if pixels.dtype in _FULL_SCALE:
        values = values.div_(_FULL_SCALE[pixels.dtype])
    return (values - shift) / scale


def check_normalization(
    mean: Sequence[float], std: Sequence[float], *, channels: int, dtype: str
) -> None:
    """Refuse a normalisation that the values of images cannot have.

    Args:
        mean: Of values, per channel.
        std: Of values, per channel.
        channels: Number of channels of the images.
        dtype: Type of the pixels. Values of integers lie in [0, 1].

    Raises:
        UserError: If there is not one number per channel, a deviation is not positive, or a number
            is not finite or not of the range that values of this type have.
    """
    for name, numbers in (("data.mean", mean), ("data.std", std)):
        if len(numbers) != channels:
            raise UserError(
                f"{name} needs one value per channel: it has {len(numbers)}, and data.channels is "
                f"{channels}. ssl-swin stats measures them"
            )
        least = 0 if dtype != "float32" else -math.inf
        most = 1 if dtype != "float32" else math.inf
        for number in numbers:
            fits = math.isfinite(number) and least <= number <= most
            if not fits or (name == "data.std" and number < _LEAST_STD[dtype]):
                raise UserError(_impossible(name, list(numbers), dtype))


def _impossible(name: str, numbers: list[float], dtype: str) -> str:
    is_std = name == "data.std"
    least = f"{_LEAST_STD[dtype]:.1g}" if is_std else "0"
    needed = f"from {least} to 1 (levels over the full scale)"
    if dtype == "float32":
        needed = f"finite and at least {least}" if is_std else "finite"
    divisor = {"uint8": 255, "uint16": 65535}.get(dtype)
    scaled = f"; divide levels by {divisor}" if divisor and max(numbers) > 1 else ""
    return (
        f"{name} of {dtype} pixels must be {needed}; it is {numbers}{scaled}. ssl-swin "
        "stats measures it"
    )


def denormalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Inverts `normalize` to 8 bits, for display: values in [0, 1] fill them, others are clipped.

    Args:
        images: float (..., C, H, W).
        mean: As given to `normalize`.
        std: As given to `normalize`.

    Returns:
        uint8, rounded to the nearest level, same shape and device.
    """
    values = images.float() * _channels(std, images) + _channels(mean, images)
    return (values * 255).round_().clamp_(0, 255).to(torch.uint8)


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    channels = like.shape[-3]
    if len(values) != channels:
        raise UserError(
            f"data.mean and data.std need one value per channel: got {len(values)}, and the images "
            f"have {channels} (data.channels)"
        )
    return torch.tensor(values, dtype=torch.float32, device=like.device).view(-1, 1, 1)

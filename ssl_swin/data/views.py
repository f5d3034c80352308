"""Colour changes that make views of one image differ, beyond their crops.

All draws come from a given generator. Pixels keep their type.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Len, MinLen
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ssl_swin.arguments import Above0Range, Fraction, NonNegative, checked
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted

Jitter = Annotated[Sequence[NonNegative], Len(4, 4)]  # brightness, contrast, saturation, hue
PerView = Annotated[Sequence[Fraction], MinLen(1)]  # probabilities; the last one serves the rest
SOLARIZED_FROM = 128  # of 255


class ColorViews:
    """Changes colours and sharpness of a crop, by rules of each view; as BYOL and MoBY do."""

    @checked
    def __init__(
        self,
        *,
        color_jitter: Jitter | None,
        color_jitter_probability: Fraction,
        grayscale_probability: Fraction | None,
        blur_radius_px: Above0Range,
        blur_probability: PerView | None,
        solarize_probability: PerView | None,
    ) -> None:
        """Set the changes up; what is null is left out.

        Args:
            color_jitter: Strength of brightness, contrast, saturation and hue, in random order; hue
                up to 0.5 of the colour circle.
            color_jitter_probability: Probability of the jitter.
            grayscale_probability: Probability of gray.
            blur_radius_px: Smallest and largest standard deviation of a Gaussian blur.
            blur_probability: Of each view; the last number is that of all further ones too.
            solarize_probability: In the same way, to invert what is at least half as bright as can
                be.

        Raises:
            UserError: If hue is more than 0.5.
        """
        if color_jitter is not None and color_jitter[3] > 0.5:
            raise UserError(f"color_jitter has a hue of at most 0.5, got {color_jitter[3]}")
        self.color_jitter = color_jitter
        self.color_jitter_probability = color_jitter_probability
        self.grayscale_probability = grayscale_probability
        self.blur_radius_px = blur_radius_px
        self.blur_probability = blur_probability
        self.solarize_probability = solarize_probability

    def check(self, pixels: PixelFormat, views: Sequence[str], key: str) -> None:
        """Refuse images whose colours cannot be changed so, and too few probabilities.

        Args:
            pixels: What images are.
            views: What the views are that need a probability each.
            key: Dotted key of these settings, for the message.

        Raises:
            UserError: With what to set.
        """
        for name in ("blur_probability", "solarize_probability"):
            given = getattr(self, name)
            if given is not None and len(given) != len(views):
                raise UserError(
                    f"{key}.{name} needs {len(views)} numbers, of {', of '.join(views)}, got "
                    f"{list(given)}"
                )
        names = ("color_jitter", "grayscale_probability", "solarize_probability")
        asked = [name for name in names if getattr(self, name) is not None]
        if asked and (pixels.channels, pixels.dtype) != (3, "uint8"):
            channels = counted(pixels.channels or 0, "channel")
            way_out = " ".join(f"{key}.{name}=null" for name in asked)
            raise UserError(
                f"{', '.join(asked)} change 3 channels of uint8, not {channels} of "
                f"{pixels.dtype}: set {way_out}"
            )

    def __call__(self, pixels: Tensor, view: int, generator: np.random.Generator) -> Tensor:
        """Return the changed pixels (C, H, W).

        Args:
            pixels: Of a crop.
            view: Number of the view, from 0.
            generator: Random generator of all draws.
        """
        if self.color_jitter is not None and generator.random() < self.color_jitter_probability:
            pixels = _jittered(pixels, self.color_jitter, generator)
        if _happens(self.grayscale_probability, generator):
            pixels = TF.rgb_to_grayscale(pixels, num_output_channels=3)
        if _happens(_of_view(self.blur_probability, view), generator):
            pixels = blurred(pixels, generator.uniform(*self.blur_radius_px))
        if _happens(_of_view(self.solarize_probability, view), generator):
            pixels = TF.solarize(pixels, SOLARIZED_FROM)
        return pixels


def _of_view(probabilities: PerView | None, view: int) -> float | None:
    return None if probabilities is None else probabilities[min(view, len(probabilities) - 1)]


def _happens(probability: float | None, generator: np.random.Generator) -> bool:
    return probability is not None and generator.random() < probability


def _jittered(pixels: Tensor, strengths: Sequence[float], generator: np.random.Generator) -> Tensor:
    brightness, contrast, saturation = (
        generator.uniform(max(0.0, 1 - strength), 1 + strength) for strength in strengths[:3]
    )
    hue = generator.uniform(-strengths[3], strengths[3])
    changes = (
        lambda image: TF.adjust_brightness(image, brightness),
        lambda image: TF.adjust_contrast(image, contrast),
        lambda image: TF.adjust_saturation(image, saturation),
        lambda image: TF.adjust_hue(image, hue),
    )
    for number in generator.permutation(len(changes)):
        pixels = changes[number](pixels)
    return pixels


def blurred(pixels: Tensor, radius_px: float) -> Tensor:
    """Return pixels (C, H, W) after a Gaussian blur of a standard deviation; edges are repeated.

    Differs from the reference, which takes Pillow's approximation of it by boxes.
    """
    reach = math.ceil(3 * radius_px)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offsets / radius_px).square())
    weights = (weights / weights.sum()).view(1, 1, -1, 1)
    image = pixels.to(torch.float32).unsqueeze(1)
    image = F.pad(image, (reach, reach, reach, reach), mode="replicate")
    image = F.conv2d(F.conv2d(image, weights), weights.transpose(2, 3)).squeeze(1)
    return image.round().to(pixels.dtype) if not pixels.is_floating_point() else image

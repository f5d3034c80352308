"""What a teacher and a student see of an image without labels: a weak and a strong view.

Reference: Soft Teacher (arXiv:2106.09018) and the pipelines of its code
(`configs/soft_teacher/base.py`).

Differs from the reference: images are resized with antialiasing; what is erased, and what comes
from outside the image, takes the mean of the view; the strengths of colour changes are of factors
and levels as the settings give them, drawn evenly.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ssl_swin.arguments import (
    Above0Range,
    Count,
    Fraction,
    RateBelow1,
    Rule,
    Side,
    SideRange,
    checked,
)
from ssl_swin.data.affine import (
    View,
    mirrored,
    resized,
    rotation,
    shear,
    translation,
    untouched,
    warped,
)
from ssl_swin.data.segment_views import size_within
from ssl_swin.errors import UserError

Degrees = Annotated[float, Ge(0), Lt(90)]
Bits = Annotated[int, Ge(1), Le(8)]
CountRange = Annotated[tuple[Count, Count], Rule(lambda v: v[0] <= v[1], "the smaller first")]


class WeakView:
    """A random size, and a flip."""

    @checked
    def __init__(self, *, short_px: SideRange, long_px: Side, flip_probability: Fraction) -> None:
        """Set the view up.

        Args:
            short_px: Smallest and largest length of the shorter side, drawn evenly.
            long_px: What the longer side has at most, for which the shorter one is then less.
            flip_probability: Probability of a horizontal flip.
        """
        self.short_px = tuple(short_px)
        self.long_px = long_px
        self.flip_probability = flip_probability

    def __call__(self, pixels: Tensor, generator: np.random.Generator) -> View:
        """Return a view of stored pixels (C, H, W)."""
        low, high = self.short_px
        view = untouched(pixels)
        short_px = int(generator.integers(low, high + 1))
        view = resized(view, size_within(view.size_px, short_px, self.long_px))
        return mirrored(view) if generator.random() < self.flip_probability else view


class StrongView:
    """A weak view with one change of colours and one of geometry, in either order, and erased."""

    @checked
    def __init__(
        self,
        *,
        weak: WeakView,
        colours: bool,
        factor: Above0Range,
        posterize_bits: Bits,
        translate_ratio: RateBelow1,
        rotate_degrees: Degrees,
        shear_degrees: Degrees,
        num_erased: CountRange,
        erase_ratio: Fraction,
    ) -> None:
        """Set the view up.

        Args:
            weak: Size and flip, which come first.
            colours: Whether colours are changed, which takes 3 channels of uint8.
            factor: Smallest and largest factor of saturation, contrast, brightness and sharpness.
            posterize_bits: What is left of 8 bits at least.
            translate_ratio: Largest move along a side, over that side.
            rotate_degrees: Largest turn.
            shear_degrees: Largest shear along each side.
            num_erased: Smallest and largest number of squares that are erased.
            erase_ratio: Largest side of such a square over the shorter side.
        """
        self.weak = weak
        self.colours = colours
        self.factor = factor
        self.posterize_bits = posterize_bits
        self.translate_ratio = translate_ratio
        self.rotate_degrees = rotate_degrees
        self.shear_degrees = shear_degrees
        self.num_erased = tuple(num_erased)
        self.erase_ratio = erase_ratio

    def __call__(self, pixels: Tensor, generator: np.random.Generator) -> View:
        """Return a view of stored pixels (C, H, W)."""
        view = self.weak(pixels, generator)
        changes: list[Callable[[View, np.random.Generator], View]]
        changes = [self._recoloured, self._moved]
        for number in generator.permutation(2):
            view = changes[number](view, generator)
        return self._erased(view, generator)

    def check_samples(self, *, channels: int, dtype: str) -> None:
        """Refuse images whose colours it cannot change.

        Args:
            channels: Number of channels of their pixels.
            dtype: Type of their pixels: uint8, uint16 or float32.

        Raises:
            UserError: If it cannot change them.
        """
        if self.colours and (channels != 3 or dtype != "uint8"):
            raise UserError(
                f"semi.strong.colours changes 3 channels of uint8, not {channels} of {dtype}: set "
                "semi.strong.colours=false"
            )

    def _recoloured(self, view: View, generator: np.random.Generator) -> View:
        if not self.colours:
            return view
        factor = float(generator.uniform(*self.factor))
        threshold = float(generator.uniform(0, 255))
        bits = int(generator.integers(self.posterize_bits, 9))
        changes: list[Callable[[Tensor], Tensor]] = [
            lambda pixels: pixels,
            TF.autocontrast,
            TF.equalize,
            lambda pixels: TF.solarize(pixels, threshold),
            lambda pixels: TF.adjust_saturation(pixels, factor),
            lambda pixels: TF.adjust_contrast(pixels, factor),
            lambda pixels: TF.adjust_brightness(pixels, factor),
            lambda pixels: TF.adjust_sharpness(pixels, factor),
            lambda pixels: TF.posterize(pixels, bits),
        ]
        return view._replace(pixels=changes[int(generator.integers(len(changes)))](view.pixels))

    def _moved(self, view: View, generator: np.random.Generator) -> View:
        height, width = view.size_px
        kind = int(generator.integers(4))
        first, second = generator.uniform(-1, 1, size=2)
        if kind == 0:
            return warped(view, translation(first * self.translate_ratio * width, 0))
        if kind == 1:
            return warped(view, translation(0, first * self.translate_ratio * height))
        if kind == 2:
            return warped(view, rotation(first * self.rotate_degrees, view.size_px))
        angles = first * self.shear_degrees, second * self.shear_degrees
        return warped(view, shear(*angles, view.size_px))

    def _erased(self, view: View, generator: np.random.Generator) -> View:
        pixels = view.pixels.clone()
        height, width = view.size_px
        mean = view.pixels.float().mean(dim=(1, 2)).to(torch.int32)
        if view.pixels.dtype.is_floating_point:
            mean = view.pixels.mean(dim=(1, 2))
        low, high = self.num_erased
        for _ in range(int(generator.integers(low, high + 1))):
            side = int(generator.uniform(0, self.erase_ratio) * min(height, width))
            top = int(generator.integers(height - side + 1))
            left = int(generator.integers(width - side + 1))
            pixels[:, top : top + side, left : left + side] = mean.to(pixels.dtype)[:, None, None]
        return view._replace(pixels=pixels)

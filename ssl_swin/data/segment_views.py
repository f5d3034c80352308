"""The augmentation of semantic segmentation: scale, crop, flip, and colours of the pixels alone.

Reference: the training pipeline of Swin's segmentation code (`configs/_base_/datasets/ade20k.py`,
`mmseg/datasets/pipelines/transforms.py`), in its order. Masks hold classes already.

Differs from the reference: images are resized with antialiasing; a hue is turned in 256 steps of a
circle instead of 180.
"""

from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

from ssl_swin.arguments import Above0Range, Fraction, Portion, Side, checked
from ssl_swin.data.geometry import Size, contiguous, crop, flip, resize
from ssl_swin.data.mask_classes import IGNORED
from ssl_swin.data.sample import Sample
from ssl_swin.data.transforms import Augmentation
from ssl_swin.errors import UserError

MOST_REDRAWS = 10  # of a crop that shows too much of one class
_FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}
Shift = Annotated[float, Ge(0), Le(255)]
Turn = Annotated[float, Ge(0), Le(180)]


class SegmentAugmentation(Augmentation):
    """Random scale, crop, flip and colours, drawn in this order.

    The result is as large as the crop, or as the scaled image where that is smaller.
    """

    @checked
    def __init__(
        self,
        size_px: Size,
        *,
        short_px: Side,
        long_px: Side,
        ratio: Above0Range,
        max_class_share: Portion,
        flip_probability: Fraction,
        brightness: Shift,
        contrast: Above0Range | None,
        saturation: Above0Range | None,
        hue_degrees: Turn | None,
    ) -> None:
        """Set the augmentation up.

        Args:
            size_px: Height and width of the crop.
            short_px: Length of the shorter side that images are scaled to, times a ratio.
            long_px: What the longer side has at most then, times the same ratio.
            ratio: Smallest and largest ratio.
            max_class_share: A crop is drawn again, up to ten times, while one class has at least
                this share of its labelled pixels, or is the only one; 1 takes the first.
            flip_probability: Probability of a horizontal flip.
            brightness: Largest shift of all values, of 255; as each of the following with
                probability 0.5. 0 for none.
            contrast: Smallest and largest factor on all values; None for none.
            saturation: Smallest and largest factor on the saturation of a colour; None for none.
            hue_degrees: Largest turn of its hue; None for none.
        """
        self.size_px = size_px
        self.short_px, self.long_px = short_px, long_px
        self.ratio = ratio
        self.max_class_share = max_class_share
        self.flip_probability = flip_probability
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue_degrees = hue_degrees

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return the augmented sample; its mask is of classes."""
        ratio = generator.uniform(*self.ratio)
        limits = int(self.short_px * ratio), int(self.long_px * ratio)
        size_px = size_within(sample.size_px, max(1, min(limits)), max(1, max(limits)))
        sample = self._cropped(resize(sample, size_px, InterpolationMode.BILINEAR), generator)
        if generator.random() < self.flip_probability:
            sample = flip(sample)
        sample = contiguous(sample)
        return replace(sample, pixels=self._recoloured(sample.pixels, generator))

    def check_samples(self, *, channels: int, dtype: str, is_annotated: bool) -> None:
        """See `Augmentation.check_samples`."""
        asked = {"saturation": self.saturation, "hue_degrees": self.hue_degrees}
        names = [name for name, value in asked.items() if value is not None]
        if names and (channels != 3 or dtype != "uint8"):
            way_out = " ".join(f"augment.{name}=null" for name in names)
            raise UserError(
                f"{' and '.join(names)} change 3 channels of uint8, not {channels} of {dtype}: set "
                f"{way_out}"
            )

    def _cropped(self, sample: Sample, generator: np.random.Generator) -> Sample:
        drawn = self._random_crop(sample, generator)
        if self.max_class_share < 1 and sample.mask is not None:
            for _ in range(MOST_REDRAWS):
                assert drawn.mask is not None
                if largest_share(drawn.mask) < self.max_class_share:
                    break
                drawn = self._random_crop(sample, generator)
        return drawn

    def _random_crop(self, sample: Sample, generator: np.random.Generator) -> Sample:
        pairs = list(zip(sample.size_px, self.size_px, strict=True))
        top, left = (int(generator.integers(max(side - new, 0) + 1)) for side, new in pairs)
        height, width = (min(side, new) for side, new in pairs)
        return crop(sample, top, left, height, width)

    def _recoloured(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        if self.brightness > 0 and generator.random() < 0.5:
            scale = _FULL_SCALE.get(pixels.dtype, 1.0) / 255
            shift = generator.uniform(-self.brightness, self.brightness)
            pixels = _as_stored(pixels.float() + shift * scale, pixels.dtype)
        contrast_first = generator.random() < 0.5
        if contrast_first:
            pixels = self._contrasted(pixels, generator)
        if self.saturation is not None and generator.random() < 0.5:
            pixels = _saturated(pixels, generator.uniform(*self.saturation))
        if self.hue_degrees is not None and generator.random() < 0.5:
            degrees = generator.uniform(-self.hue_degrees, self.hue_degrees)
            pixels = _turned(pixels, round(degrees / 360 * 256))
        return pixels if contrast_first else self._contrasted(pixels, generator)

    def _contrasted(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        if self.contrast is None or generator.random() >= 0.5:
            return pixels
        factor = generator.uniform(*self.contrast)
        return _as_stored(pixels.float() * factor, pixels.dtype)


class WholeImage(Augmentation):
    """The augmentation of evaluation: none. Images are resized on the device."""

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return the sample as it is."""
        return sample


def size_within(size: Size, short_px: int, long_px: int) -> Size:
    """Return the largest size of an image's shape within two limits.

    Args:
        size: Height and width of the image.
        short_px: What its shorter side has at most.
        long_px: What its longer side has at most.
    """
    factor = min(long_px / max(size), short_px / min(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def largest_share(classes: Tensor) -> float:
    """Return the share of the most frequent class among labelled pixels, 1 of one class or none.

    Args:
        classes: Class of each pixel, integers; `IGNORED` does not count.
    """
    counts = torch.bincount(classes[classes != IGNORED].flatten().int())
    return 1.0 if (counts > 0).sum() < 2 else float(counts.max() / counts.sum())


def _as_stored(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return values in the type of pixels; integers are cut off, as in the original."""
    if dtype not in _FULL_SCALE:
        return values.to(dtype)
    return values.clamp_(0, _FULL_SCALE[dtype]).to(torch.int32).to(dtype)


def _saturated(pixels: Tensor, factor: float) -> Tensor:
    hsv = _to_hsv(pixels)
    hsv[..., 1] = np.clip(hsv[..., 1].astype(np.float32) * factor, 0, 255).astype(np.uint8)
    return _from_hsv(hsv)


def _turned(pixels: Tensor, steps: int) -> Tensor:
    hsv = _to_hsv(pixels)
    hsv[..., 0] = ((hsv[..., 0].astype(np.int32) + steps) % 256).astype(np.uint8)
    return _from_hsv(hsv)


def _to_hsv(pixels: Tensor) -> np.ndarray:
    """Return uint8 colours (3, H, W) as hue, saturation and value, uint8 (H, W, 3)."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    return np.array(image.convert("HSV"))


def _from_hsv(hsv: np.ndarray) -> Tensor:
    image = Image.fromarray(hsv, mode="HSV").convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

"""Views of an image: random crop, centre crop, and timm's augmentation (L1).

A view maps decoded pixels, uint8 (C, H, W), and a generator to pixels of the model's input size.
Normalisation comes later, on the device.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from ssl_swin.data.rng import seeded_globals

Size = tuple[int, int]
Range = tuple[float, float]


class View(Protocol):
    """Maps raw pixels to raw pixels of the model's input size."""

    def __call__(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        """uint8 (C, H, W) to uint8 (C, height, width)."""
        ...


class RandomCropView:
    """Random resized crop and horizontal flip: the whole augmentation of SimMIM pretraining.

    Like torchvision's RandomResizedCrop, bilinear and antialiased, drawn from the given generator.
    """

    def __init__(
        self,
        size_px: Size,
        *,
        crop_scale: Range,
        crop_aspect: Range,
        flip_probability: float,
    ) -> None:
        """Sets the view up.

        Args:
            size_px: (height, width) of the result.
            crop_scale: Smallest and largest area of the crop, as fractions of the image.
            crop_aspect: Smallest and largest width / height of the crop.
            flip_probability: Of a horizontal flip.
        """
        self.size_px = size_px
        self.crop_scale = crop_scale
        self.crop_aspect = crop_aspect
        self.flip_probability = flip_probability

    def __call__(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        """uint8 (C, H, W) to uint8 (C, height, width)."""
        height_px, width_px = pixels.shape[-2:]
        box = self.random_box(height_px, width_px, generator)
        crop = TF.resized_crop(pixels, *box, list(self.size_px), antialias=True)
        flipped = generator.random() < self.flip_probability
        view: Tensor = TF.horizontal_flip(crop) if flipped else crop
        return view.contiguous()

    def random_box(
        self, height_px: int, width_px: int, generator: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Draws a crop (top, left, height, width); the largest central one after ten misses."""
        log_aspects = np.log(self.crop_aspect)
        for _ in range(10):
            area = height_px * width_px * generator.uniform(*self.crop_scale)
            aspect = math.exp(generator.uniform(*log_aspects))
            width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < width <= width_px and 0 < height <= height_px:
                top = int(generator.integers(height_px - height + 1))
                left = int(generator.integers(width_px - width + 1))
                return top, left, height, width
        return self._central_box(height_px, width_px)

    def _central_box(self, height_px: int, width_px: int) -> tuple[int, int, int, int]:
        narrowest, widest = self.crop_aspect
        width = min(width_px, round(height_px * widest))
        height = min(height_px, round(width_px / narrowest))
        return (height_px - height) // 2, (width_px - width) // 2, height, width


class CentreCropView:
    """Evaluation view: resize, then crop the centre, as in the Swin recipe (224 of 256)."""

    def __init__(self, size_px: Size, *, crop_ratio: float = 224 / 256) -> None:
        """Sets the view up.

        Args:
            size_px: (height, width) of the result.
            crop_ratio: Side of the crop over the shorter side of the resized image.
        """
        self.size_px = size_px
        self.crop_ratio = crop_ratio

    def __call__(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        """uint8 (C, H, W) to uint8 (C, height, width); draws nothing."""
        height_px, width_px = pixels.shape[-2:]
        least_height_px, least_width_px = (int(side / self.crop_ratio) for side in self.size_px)
        if least_height_px * width_px >= least_width_px * height_px:
            resized_px = [least_height_px, least_height_px * width_px // height_px]
        else:
            resized_px = [least_width_px * height_px // width_px, least_width_px]
        resized = TF.resize(pixels, resized_px, InterpolationMode.BICUBIC, antialias=True)
        crop: Tensor = TF.center_crop(resized, list(self.size_px))
        return crop.contiguous()


class AugmentedView:
    """timm's training augmentation up to, and without, normalisation and random erasing.

    Random resized crop (bicubic), flip and RandAugment; erasing and mixing follow on the device.
    """

    def __init__(
        self,
        size_px: Size,
        *,
        mean: Sequence[float],
        crop_scale: Range,
        crop_aspect: Range,
        flip_probability: float,
        auto_augment: str | None,
    ) -> None:
        """Sets the view up.

        Args:
            size_px: (height, width) of the result.
            mean: Per channel; its grey fills what an augmentation uncovers.
            crop_scale: As in `RandomCropView`.
            crop_aspect: As in `RandomCropView`.
            flip_probability: Of a horizontal flip.
            auto_augment: timm's notation, e.g. "rand-m9-mstd0.5-inc1", or None.
        """
        self.transform = create_transform(
            (3, *size_px),
            is_training=True,
            use_prefetcher=True,  # ends in uint8, leaving normalisation and erasing to the device
            scale=(crop_scale[0], crop_scale[1]),
            ratio=(crop_aspect[0], crop_aspect[1]),
            hflip=flip_probability,
            auto_augment=auto_augment,
            color_jitter=0.0,
            interpolation="bicubic",
            mean=tuple(mean),
        )
        for operation in _operations(self.transform):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize

    def __call__(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        """uint8 (C, H, W) to uint8 (C, height, width)."""
        with seeded_globals(generator):
            return torch.as_tensor(np.asarray(self.transform(TF.to_pil_image(pixels))))


def _operations(transform: Any) -> Iterator[Any]:
    """Finds the image operations inside timm's transform."""
    for step in transform.transforms:
        yield from getattr(step, "ops", ())  # RandAugment, AugMix
        for pair in getattr(step, "policy", ()):  # AutoAugment
            yield from pair


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """Keeps the upper bits. None is black: the recipe's strength draws it, Pillow 13 refuses it."""
    if bits == 0:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits)

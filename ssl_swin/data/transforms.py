"""Views of an image: random crop, centre crop, and timm's augmentation.

A view maps decoded pixels, (C, H, W) of uint8, uint16 or float32, and a generator to pixels of the
model's input size. Normalisation comes later, on the device.
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
from ssl_swin.errors import UserError

Size = tuple[int, int]
Range = tuple[float, float]


class View(Protocol):
    """Maps raw pixels to raw pixels of the model's input size."""

    def __call__(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        """(C, H, W) to (C, height, width) of the same type."""
        ...


class RandomCropView:
    """Random resized crop and horizontal flip: the whole augmentation of SimMIM pretraining.

    Like torchvision's RandomResizedCrop, antialiased, drawn from the given generator.
    """

    def __init__(
        self,
        size_px: Size,
        *,
        crop_scale: Range,
        crop_aspect: Range,
        flip_probability: float,
        interpolation: str = "bilinear",
    ) -> None:
        """Sets the view up.

        Args:
            size_px: (height, width) of the result.
            crop_scale: Smallest and largest area of the crop, as fractions of the image.
            crop_aspect: Smallest and largest width / height of the crop.
            flip_probability: Of a horizontal flip.
            interpolation: bilinear or bicubic.
        """
        self.size_px = size_px
        self.crop_scale = crop_scale
        self.crop_aspect = crop_aspect
        self.flip_probability = flip_probability
        self.interpolation = InterpolationMode(interpolation)

    def __call__(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        """(C, H, W) to (C, height, width) of the same type."""
        height_px, width_px = pixels.shape[-2:]
        box = self.random_box(height_px, width_px, generator)
        resized = _resize(TF.crop(pixels, *box), self.size_px, self.interpolation)
        flipped = generator.random() < self.flip_probability
        view: Tensor = TF.horizontal_flip(resized) if flipped else resized
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
        """(C, H, W) to (C, height, width) of the same type; draws nothing."""
        height_px, width_px = pixels.shape[-2:]
        least_height_px, least_width_px = (int(side / self.crop_ratio) for side in self.size_px)
        if least_height_px * width_px >= least_width_px * height_px:
            resized_px = least_height_px, least_height_px * width_px // height_px
        else:
            resized_px = least_width_px * height_px // width_px, least_width_px
        resized = _resize(pixels, resized_px, InterpolationMode.BICUBIC)
        crop: Tensor = TF.center_crop(resized, list(self.size_px))
        return crop.contiguous()


class AugmentedView:
    """timm's training augmentation up to, and without, normalisation and random erasing.

    Random resized crop (bicubic), flip and RandAugment; erasing and mixing follow on the device.
    RandAugment needs 8 bits of gray or RGB; without it, any pixels will do.
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
        self.plain = RandomCropView(
            size_px,
            crop_scale=crop_scale,
            crop_aspect=crop_aspect,
            flip_probability=flip_probability,
            interpolation="bicubic",
        )
        self.auto_augment = auto_augment
        if auto_augment is not None:
            self.transform = _timm_transform(self.plain, mean, auto_augment)

    def __call__(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        """(C, H, W) to (C, height, width) of the same type.

        Raises:
            UserError: If the pixels are none that `auto_augment` can change.
        """
        if self.auto_augment is None:
            return self.plain(pixels, generator)
        if pixels.dtype != torch.uint8 or len(pixels) not in (1, 3):
            dtype = str(pixels.dtype).removeprefix("torch.")
            raise UserError(
                f"{self.auto_augment} changes 1 or 3 channels of uint8, not {len(pixels)} of "
                f"{dtype}: set augment.auto_augment=null"
            )
        with seeded_globals(generator):
            return torch.as_tensor(np.asarray(self.transform(TF.to_pil_image(pixels))))


def _resize(pixels: Tensor, size_px: Size, interpolation: InterpolationMode) -> Tensor:
    """Resizes with antialiasing; 16 bits by way of float, since torch resizes 8 bits or floats."""
    if pixels.dtype != torch.uint16:
        resized: Tensor = TF.resize(pixels, list(size_px), interpolation, antialias=True)
        return resized
    levels = TF.resize(pixels.float(), list(size_px), interpolation, antialias=True)
    return levels.round_().clamp_(0, 65535).to(torch.uint16)  # type: ignore[no-any-return]


def _timm_transform(plain: RandomCropView, mean: Sequence[float], auto_augment: str) -> Any:
    transform = create_transform(
        (3, *plain.size_px),
        is_training=True,
        use_prefetcher=True,  # ends in uint8, leaving normalisation and erasing to the device
        scale=(plain.crop_scale[0], plain.crop_scale[1]),
        ratio=(plain.crop_aspect[0], plain.crop_aspect[1]),
        hflip=plain.flip_probability,
        auto_augment=auto_augment,
        color_jitter=0.0,
        interpolation="bicubic",
        mean=tuple(mean),
    )
    for operation in _operations(transform):
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return transform


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

"""Augmentations of a sample: random crop, centre crop, and timm's augmentation.

An augmentation maps a decoded sample and a generator to a sample of the model's input size, with
one draw for its pixels, mask and boxes. Normalisation comes later, on the device.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import MinLen
from PIL import Image, ImageOps
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from ssl_swin.arguments import Above0Range, Fraction, Name, Portion, PortionRange, checked
from ssl_swin.data.geometry import Size, contiguous, crop, flip, resize
from ssl_swin.data.rng import seeded_globals
from ssl_swin.data.sample import Sample
from ssl_swin.errors import UserError

CropRatio = Portion  # side of a crop over the shorter side of its image

MOST_TIMES_LONGER = 16  # than its crop; of longer images, the ends are cut off before resizing
BORDER_PX = 8  # more than that is kept, which bicubic interpolation sees


class Augmentation(ABC):
    """Maps a sample to one of the model's input size, with the types that it has."""

    @abstractmethod
    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return the augmented sample.

        Args:
            sample: The sample, of any size.
            generator: Random generator of all draws.
        """

    def check_samples(  # noqa: B027
        self, *, channels: int, dtype: str, is_annotated: bool
    ) -> None:
        """Refuse samples that it cannot change; by default it takes all.

        Args:
            channels: Number of channels of their pixels.
            dtype: Type of their pixels: uint8, uint16 or float32.
            is_annotated: Whether they have a mask or boxes.

        Raises:
            UserError: If it cannot change them.
        """

    def for_local_views(
        self, size_px: Size, crop_scale: tuple[float, float]
    ) -> "Augmentation | None":
        """Return the same augmentation of smaller crops; None from one that shows whole images.

        Args:
            size_px: Height and width of the result.
            crop_scale: Smallest and largest area of the crop, as fractions of the image.

        Raises:
            UserError: If it has none.
        """
        raise UserError(
            f"a {type(self).__name__} makes no crops of details, as local views are: choose "
            "augment._target_=ssl_swin.RandomCrop"
        )

    def on_pixels(self, pixels: Tensor, generator: np.random.Generator) -> Tensor:
        """Return augmented pixels: (C, H, W) to (C, height, width) of the same type.

        Args:
            pixels: Pixels of an image without a mask or boxes.
            generator: Random generator of all draws.
        """
        return self(Sample(pixels), generator).pixels


class RandomCrop(Augmentation):
    """Random resized crop and horizontal flip: the whole augmentation of SimMIM pretraining.

    Like torchvision's RandomResizedCrop, antialiased, drawn from the given generator.
    """

    @checked
    def __init__(
        self,
        size_px: Size,
        *,
        crop_scale: PortionRange,
        crop_aspect: Above0Range,
        flip_probability: Fraction,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
    ) -> None:
        """Set the augmentation up.

        Args:
            size_px: Height and width of the result.
            crop_scale: Smallest and largest area of the crop, as fractions of the image.
            crop_aspect: Smallest and largest width / height of the crop.
            flip_probability: Probability of a horizontal flip.
            interpolation: "bilinear" or "bicubic", for the pixels.

        Raises:
            UserError: If a range or the probability cannot be one.
        """
        if not 0 <= flip_probability <= 1:
            raise UserError(f"augment.flip_probability must be from 0 to 1, got {flip_probability}")
        self.size_px = size_px
        self.crop_scale = crop_scale
        self.crop_aspect = crop_aspect
        self.flip_probability = flip_probability
        self.interpolation = InterpolationMode(interpolation)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return a random crop, resized and perhaps flipped."""
        box = self.random_box(*sample.size_px, generator)
        resized = resize(crop(sample, *box), self.size_px, self.interpolation)
        flipped = generator.random() < self.flip_probability
        return contiguous(flip(resized) if flipped else resized)

    def for_local_views(self, size_px: Size, crop_scale: tuple[float, float]) -> "RandomCrop":
        """See `Augmentation.for_local_views`."""
        smaller = copy(self)
        smaller.size_px, smaller.crop_scale = size_px, crop_scale
        return smaller

    def random_box(
        self, height_px: int, width_px: int, generator: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Draw a crop (top, left, height, width); after ten misses, the largest central one."""
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
        width = min(width_px, max(1, round(height_px * widest)))
        height = min(height_px, max(1, round(width_px / narrowest)))
        return (height_px - height) // 2, (width_px - width) // 2, height, width


class CentreCrop(Augmentation):
    """The augmentation of evaluation: resize, then crop the centre, as in Swin (224 of 256).

    Of an image that is more than 16 times as long as its crop's shape asks for, the ends are cut
    off before it is resized, so that the work does not grow with what is thrown away.
    """

    @checked
    def __init__(self, size_px: Size, *, crop_ratio: CropRatio = 224 / 256) -> None:
        """Set the augmentation up.

        Args:
            size_px: Height and width of the result.
            crop_ratio: Side of the crop over the shorter side of the resized image, in (0, 1].

        Raises:
            UserError: If `crop_ratio` is out of its range.
        """
        self.size_px = size_px
        self.crop_ratio = crop_ratio

    def for_local_views(self, size_px: Size, crop_scale: tuple[float, float]) -> None:
        """Return None: evaluations look at whole images."""

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return the centre of the resized sample; nothing is drawn."""
        least_height_px, least_width_px = (int(side / self.crop_ratio) for side in self.size_px)
        sample = _without_far_ends(sample, (least_height_px, least_width_px))
        height_px, width_px = sample.size_px
        if least_height_px * width_px >= least_width_px * height_px:
            resized_px = least_height_px, least_height_px * width_px // height_px
        else:
            resized_px = least_width_px * height_px // width_px, least_width_px
        resized = resize(sample, resized_px, InterpolationMode.BICUBIC)
        margins_px = [side - inner for side, inner in zip(resized_px, self.size_px, strict=True)]
        top, left = (round(margin_px / 2) for margin_px in margins_px)  # as torchvision has it
        return contiguous(crop(resized, top, left, *self.size_px))


def _without_far_ends(sample: Sample, shape: Size) -> Sample:
    """Cut off the ends of an image that is far longer than a shape, at equal lengths.

    Args:
        sample: The sample.
        shape: Height and width that the image is to be scaled to, of which one is met exactly.
    """
    height_px, width_px = sample.size_px
    kept_height_px = _kept_length(height_px, width_px * shape[0] / shape[1])
    kept_width_px = _kept_length(width_px, height_px * shape[1] / shape[0])
    if (kept_height_px, kept_width_px) == (height_px, width_px):
        return sample
    top, left = (height_px - kept_height_px) // 2, (width_px - kept_width_px) // 2
    return crop(sample, top, left, kept_height_px, kept_width_px)


def _kept_length(length_px: int, fitting_px: float) -> int:
    """Return how much of a side is kept, such that what is cut off is even.

    Args:
        length_px: Length of the side.
        fitting_px: Length at which the image would have the wanted shape.
    """
    kept_px = math.ceil(MOST_TIMES_LONGER * fitting_px) + BORDER_PX
    return length_px if length_px <= kept_px else kept_px + (length_px - kept_px) % 2


class FinetuneAugmentation(Augmentation):
    """timm's training augmentation up to, and without, normalisation and random erasing.

    Random resized crop (bicubic), flip and RandAugment; erasing and mixing follow on the device.
    RandAugment needs 8 bits of gray or RGB, and moves pixels where no mask or box can follow;
    without it, any sample will do.
    """

    @checked
    def __init__(
        self,
        size_px: Size,
        *,
        mean: Annotated[Sequence[float], MinLen(1)],
        crop_scale: PortionRange,
        crop_aspect: Above0Range,
        flip_probability: Fraction,
        auto_augment: Name | None,
    ) -> None:
        """Set the augmentation up.

        Args:
            size_px: Height and width of the result.
            mean: Mean of each channel in [0, 1]; this colour fills what an augmentation uncovers.
            crop_scale: Smallest and largest area of the crop, as fractions of the image.
            crop_aspect: Smallest and largest width / height of the crop.
            flip_probability: Probability of a horizontal flip.
            auto_augment: timm's notation, such as "rand-m9-mstd0.5-inc1"; None for none.
        """
        self.plain = RandomCrop(
            size_px,
            crop_scale=crop_scale,
            crop_aspect=crop_aspect,
            flip_probability=flip_probability,
            interpolation="bicubic",
        )
        self.mean = tuple(mean)
        self.auto_augment = auto_augment
        if auto_augment is not None:
            self.transform = _timm_transform(self.plain, mean, auto_augment)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return the augmented sample.

        Raises:
            UserError: If `auto_augment` cannot change the pixels, or there is a mask or boxes.
        """
        if self.auto_augment is None:
            return self.plain(sample, generator)
        pixels = sample.pixels
        dtype = str(pixels.dtype).removeprefix("torch.")
        self.check_samples(channels=len(pixels), dtype=dtype, is_annotated=sample.is_annotated)
        with seeded_globals(generator):
            augmented = np.asarray(self.transform(TF.to_pil_image(pixels)))
        return replace(sample, pixels=torch.as_tensor(augmented))

    def check_samples(self, *, channels: int, dtype: str, is_annotated: bool) -> None:
        """See `Augmentation.check_samples`."""
        if self.auto_augment is None:
            return
        if dtype != "uint8" or channels not in (1, 3):
            raise UserError(
                f"{self.auto_augment} changes 1 or 3 channels of uint8, not {channels} of "
                f"{dtype}: set augment.auto_augment=null"
            )
        if is_annotated:
            raise UserError(
                f"{self.auto_augment} rotates and shears the pixels, which masks and boxes cannot "
                "follow: set augment.auto_augment=null"
            )
        if len(self.mean) != channels:
            raise UserError(
                f"augment.mean must have a number for each of the {channels} channels, got "
                f"{list(self.mean)}"
            )


def _timm_transform(plain: RandomCrop, mean: Sequence[float], auto_augment: str) -> Any:
    try:
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
    except (AssertionError, LookupError, ValueError) as error:
        raise UserError(
            f"augment.auto_augment={auto_augment} is no notation of timm ({error}): give one as "
            "rand-m9-mstd0.5-inc1, or null for none"
        ) from error
    for operation in _operations(transform):
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return transform


def _operations(transform: Any) -> Iterator[Any]:
    """Yield the image operations inside timm's transform."""
    for step in transform.transforms:
        yield from getattr(step, "ops", ())  # RandAugment, AugMix
        for pair in getattr(step, "policy", ()):  # AutoAugment
            yield from pair


def _posterize(image: Image.Image, bits: int, **options: Any) -> Image.Image:
    """Keep the upper bits; no bit at all, which Pillow 13 refuses, gives black."""
    if bits == 0:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits)

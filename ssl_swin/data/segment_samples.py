"""From an encoded image with its mask to an example of segmentation, and examples to a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.encoded import IMAGE, MASK, EncodedSample
from ssl_swin.data.geometry import Size
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.mask_classes import IGNORED, MaskClasses
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.sample import Sample
from ssl_swin.data.transforms import Augmentation


class SegmentSample(NamedTuple):
    """One image and the class of each pixel."""

    pixels: Tensor  # uint8, uint16 or float32 (C, H, W)
    classes: Tensor  # int16 (H, W), IGNORED where there is none
    name: str  # of the image in its set
    least_px: Size = (0, 0)  # height and width that its batch is filled up to at least


class SegmentBatch(NamedTuple):
    """Images of unlike sizes, filled up on the right and at the bottom."""

    pixels: Tensor  # uint8, uint16 or float32 (B, C, H, W), 0 where filled up
    classes: Tensor  # int16 (B, H, W), IGNORED where filled up
    sizes_px: Tensor  # int64 (B, 2): height and width of each image
    names: list[str]  # B

    def images(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each image (C, h, w) with its classes (h, w), as it was before it was filled up.

        Args:
            images: Of this batch, (B, C, H, W).
        """
        sizes: list[list[int]] = self.sizes_px.tolist()
        return [
            (image[:, :height, :width], classes[:height, :width])
            for image, classes, (height, width) in zip(images, self.classes, sizes, strict=True)
        ]


class SegmentTransform:
    """Decodes an image and its mask, and augments both with one draw."""

    def __init__(
        self,
        augmentation: Augmentation,
        pixels: PixelFormat,
        masks: MaskClasses,
        *,
        num_classes: int,
        seed: int,
        least_px: Size = (0, 0),
    ) -> None:
        """Set the transform up.

        Args:
            augmentation: Scale, crop, flip and colours; it sees classes, not the mask's values.
            pixels: What a decoded image is.
            masks: What the values of a mask stand for.
            num_classes: Number of classes.
            seed: Seed of all draws.
            least_px: Height and width that batches are filled up to at least.
        """
        self.augmentation = augmentation
        self.pixels = pixels
        self.masks = masks
        self.num_classes = num_classes
        self.seed = seed
        self.least_px = least_px

    def __call__(self, encoded: EncodedSample, epoch: int) -> SegmentSample:
        """Make the example of an encoded sample in an epoch.

        Raises:
            UserError: If the image or mask cannot be decoded, or a value of the mask is no class.
        """
        sample = read_classes(encoded, self.pixels, self.masks, self.num_classes)
        generator = keyed_generator(self.seed, epoch, encoded.name, "view")
        sample = self.augmentation(sample, generator)
        assert sample.mask is not None
        return SegmentSample(sample.pixels, sample.mask, encoded.name, self.least_px)


def read_classes(
    encoded: EncodedSample, pixels: PixelFormat, masks: MaskClasses, num_classes: int
) -> Sample:
    """Decode an image with its mask, which then holds classes.

    Args:
        encoded: The sample.
        pixels: What the decoded image is.
        masks: What the values of a mask stand for.
        num_classes: Number of classes.

    Raises:
        UserError: As `SegmentTransform`.
    """
    sample = decode_sample(encoded, pixels, members=(IMAGE, MASK), as_colours=masks.are_colours)
    assert sample.mask is not None
    classes = masks.read(sample.mask, num_classes, encoded.name)
    return Sample(sample.pixels, classes, label=sample.label, name=sample.name)


def collate_segments(samples: Sequence[SegmentSample]) -> SegmentBatch:
    """Fill images up to the largest height and width, and stack them."""
    sizes = torch.tensor([sample.classes.shape for sample in samples])
    least = torch.tensor([sample.least_px for sample in samples])
    height, width = torch.cat([sizes, least]).amax(dim=0).tolist()
    return SegmentBatch(
        torch.stack([_filled(sample.pixels, (height, width), 0) for sample in samples]),
        torch.stack([_filled(sample.classes, (height, width), IGNORED) for sample in samples]),
        sizes,
        [sample.name for sample in samples],
    )


def without_filling(images: Tensor, sizes_px: Tensor) -> Tensor:
    """Return normalised images with exact zeros where a batch was filled up, as the original's.

    Args:
        images: Normalised (B, C, H, W).
        sizes_px: Height and width of each image, int64 (B, 2).
    """
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[-2:])
    sizes = sizes_px.to(images.device)
    inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None]
    return images * inside[:, None]


def _filled(values: Tensor, size_px: Size, fill: int) -> Tensor:
    missing = [new - old for old, new in zip(values.shape[-2:], size_px, strict=True)]
    if not any(missing):
        return values
    return functional.pad(values, (0, missing[1], 0, missing[0]), value=fill)

"""From an encoded image with its boxes to an example of detection, and examples to a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.encoded import IMAGE, EncodedSample
from ssl_swin.data.geometry import box_areas, keep_boxes
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.sample import Sample
from ssl_swin.data.transforms import Augmentation
from ssl_swin.errors import UserError

DIVISOR_PX = 32  # of the sides of a batch: the stride of the last map
LEAST_SIDE_PX = 1.0  # of a box to train on


class DetectSample(NamedTuple):
    """One image and the objects in it."""

    pixels: Tensor  # uint8, uint16 or float32 (C, H, W)
    boxes: Tensor  # float32 (N, 4): x_min, y_min, x_max, y_max in px
    labels: Tensor  # int64 (N,), from 0
    masks: Tensor | None  # uint8 (N, H, W), 1 where the object is
    crowd: Tensor  # bool (N,): whether the box is around a crowd of objects
    areas: Tensor  # float32 (N,), px^2 of the objects
    name: str  # of the image in its set


class DetectBatch(NamedTuple):
    """Images of unlike sizes, filled up on the right and at the bottom; objects by image."""

    pixels: Tensor  # uint8, uint16 or float32 (B, C, H, W), 0 where filled up
    sizes_px: Tensor  # int64 (B, 2): height and width of each image
    boxes: list[Tensor]  # B of float32 (N, 4)
    labels: list[Tensor]  # B of int64 (N,)
    masks: list[Tensor] | None  # B of uint8 (N, h, w), as large as each image
    crowd: list[Tensor]  # B of bool (N,)
    areas: list[Tensor]  # B of float32 (N,)
    names: list[str]  # B


class DetectTransform:
    """Decodes an image and its boxes, and augments both with one draw."""

    def __init__(
        self,
        augmentation: Augmentation,
        pixels: PixelFormat,
        *,
        seed: int,
        with_masks: bool,
        keep_crowd: bool,
        num_classes: int | None = None,
    ) -> None:
        """Set the transform up.

        Args:
            augmentation: Scale, crop and flip.
            pixels: What a decoded image is.
            seed: Seed of all draws.
            with_masks: Whether the masks of objects are wanted.
            keep_crowd: Whether all boxes are kept, as evaluation wants it. Else those of crowds,
                and those that have a side below 1 px after the augmentation, are dropped.
            num_classes: Number of classes, which a label is held against; None takes any.
        """
        self.augmentation = augmentation
        self.pixels = pixels
        self.seed = seed
        self.with_masks = with_masks
        self.keep_crowd = keep_crowd
        self.num_classes = num_classes

    def __call__(self, encoded: EncodedSample, epoch: int) -> DetectSample:
        """Make the example of an encoded sample in an epoch.

        Raises:
            UserError: If the image or its boxes cannot be decoded, a label is no class, or there
                are no masks where they are wanted.
        """
        sample = decode_sample(
            encoded, self.pixels, members=(IMAGE, BOXES), box_masks=self.with_masks
        )
        self._check(sample)
        if not self.keep_crowd and sample.box_crowd is not None:
            sample = keep_boxes(sample, ~sample.box_crowd)
        sample = self.augmentation(sample, keyed_generator(self.seed, epoch, encoded.name, "view"))
        if not self.keep_crowd:
            assert sample.boxes is not None
            sides_px = sample.boxes[:, 2:] - sample.boxes[:, :2]
            sample = keep_boxes(sample, (sides_px >= LEAST_SIDE_PX).all(dim=1))
        return detect_example(sample, with_masks=self.with_masks)

    def _check(self, sample: Sample) -> None:
        labels = sample.box_labels
        assert labels is not None
        if self.num_classes is not None and len(labels) and labels.max() >= self.num_classes:
            raise UserError(
                f"the boxes of {sample.name} have the label {int(labels.max())}, and there are "
                f"{self.num_classes} classes, from 0"
            )
        if self.with_masks and sample.box_masks is None and len(labels):
            raise UserError(
                f"the boxes of {sample.name} have no masks: set task.with_masks=false to detect "
                "boxes alone"
            )


def detect_example(sample: Sample, *, with_masks: bool) -> DetectSample:
    """Return the fields of a sample, with what is to be taken where a list is not known.

    Args:
        sample: With boxes.
        with_masks: Whether masks are wanted.
    """
    assert sample.boxes is not None and sample.box_labels is not None
    boxes, masks = sample.boxes, sample.box_masks
    if with_masks and masks is None:  # an image without objects
        masks = torch.zeros(0, *sample.size_px, dtype=torch.uint8)
    crowd, areas = sample.box_crowd, sample.box_areas
    if crowd is None:
        crowd = torch.zeros(len(boxes), dtype=torch.bool)
    if areas is None:
        areas = box_areas(boxes) if masks is None else masks.count_nonzero(dim=(1, 2)).float()
    return DetectSample(sample.pixels, boxes, sample.box_labels, masks, crowd, areas, sample.name)


def collate_detections(
    samples: Sequence[DetectSample], divisor_px: int = DIVISOR_PX
) -> DetectBatch:
    """Fill images up to the largest height and width, and stack them; objects become lists.

    Args:
        samples: Examples.
        divisor_px: What the sides of the batch are multiples of.
    """
    sizes = torch.tensor([sample.pixels.shape[1:] for sample in samples])
    height, width = (-(-sizes.amax(dim=0) // divisor_px) * divisor_px).tolist()
    pixels = torch.zeros(
        len(samples), samples[0].pixels.shape[0], height, width, dtype=samples[0].pixels.dtype
    )
    for image, sample in zip(pixels, samples, strict=True):
        image[:, : sample.pixels.shape[1], : sample.pixels.shape[2]] = sample.pixels
    masks = [sample.masks for sample in samples if sample.masks is not None]
    return DetectBatch(
        pixels,
        sizes,
        [sample.boxes for sample in samples],
        [sample.labels for sample in samples],
        masks if len(masks) == len(samples) else None,
        [sample.crowd for sample in samples],
        [sample.areas for sample in samples],
        [sample.name for sample in samples],
    )

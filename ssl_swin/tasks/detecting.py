"""From a network that sees an image at one size to what is detected in the stored image.

Reference: the test pipeline of Swin's detection configurations. Each image is looked at alone,
since padding is not neutral: a result does not depend on a batch.

Differs from the reference: images are resized on the device, after normalising, bilinear and with
antialiasing; the original resizes bytes before, without it.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ssl_swin.arguments import Fraction, Portion, Positive, RateBelow1, Side, checked
from ssl_swin.data.geometry import Size
from ssl_swin.data.segment_views import size_within
from ssl_swin.tasks.detections import Detections, paste_masks
from ssl_swin.tasks.rcnn.objects import Found, Sizes


class Detect(Protocol):
    """What detects objects in normalised images."""

    def __call__(
        self, images: Tensor, sizes: Sizes, *, least_score: float, nms_iou: float, most: int
    ) -> list[Found]:
        """Detect objects in images (B, C, H, W); see `RoIHeads.detect`."""


@checked
@dataclass(frozen=True)
class DetectInference:
    """How a detector looks at images, and what it tells of them.

    Attributes:
        short_px: Length of the shorter side that images are resized to; None leaves them as they
            are.
        long_px: What the longer side has at most then.
        divisor_px: What zeros fill up the sides to a multiple of.
        least_score: Detections below it are dropped.
        nms_iou: Of two detections of a class that overlap more than this, the surer one is kept.
        most_objects: Of an image.
        mask_threshold: Probability from which on a pixel belongs to an object.
    """

    short_px: Side | None = 800
    long_px: Side = 1333
    divisor_px: Positive = 32
    least_score: RateBelow1 = 0.05
    nms_iou: Portion = 0.5
    most_objects: Positive = 100
    mask_threshold: Fraction = 0.5

    @torch.no_grad()
    def detections(self, detect: Detect, image: Tensor) -> Detections:
        """Return what is detected in an image.

        Args:
            detect: The network, in eval mode.
            image: Normalised, (C, H, W).
        """
        size = (image.shape[-2], image.shape[-1])
        seen = self._seen_size(size)
        resized = image[None].float()
        if seen != size:
            resized = functional.interpolate(
                resized, seen, mode="bilinear", align_corners=False, antialias=True
            )
        missing = [-side % self.divisor_px for side in seen]
        filled = functional.pad(resized, (0, missing[1], 0, missing[0]))
        (found,) = detect(
            filled,
            [seen],
            least_score=self.least_score,
            nms_iou=self.nms_iou,
            most=self.most_objects,
        )
        return self._in_stored_px(found, seen, size)

    def _seen_size(self, size: Size) -> Size:
        if self.short_px is None:
            return size
        return size_within(size, min(self.short_px, self.long_px), self.long_px)

    def _in_stored_px(self, found: Found, seen: Size, size: Size) -> Detections:
        factors = [new / old for new, old in zip(size[::-1], seen[::-1], strict=True)]
        boxes = found.boxes * found.boxes.new_tensor(factors * 2)
        masks = None
        if found.masks is not None:
            masks = paste_masks(found.masks, boxes, size, threshold=self.mask_threshold)
        return Detections(boxes, found.scores, found.labels, masks)

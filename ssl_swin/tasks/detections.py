"""What is detected in an image, and masks as large as it is."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

LEAST_SIDE_PX = 1e-6  # of a box, so that nothing is divided by 0


class Detections(NamedTuple):
    """The objects that are detected in one image, the surest first."""

    boxes: Tensor  # float32 (M, 4): x_min, y_min, x_max, y_max in px of the stored image
    scores: Tensor  # float32 (M,), probabilities
    labels: Tensor  # int64 (M,), from 0
    masks: Tensor | None  # bool (M, H, W), True where the object is

    def to(self, device: torch.device | str) -> "Detections":
        """Return them on a device."""
        masks = None if self.masks is None else self.masks.to(device)
        boxes, scores, labels = (each.to(device) for each in self[:3])
        return Detections(boxes, scores, labels, masks)


def paste_masks(
    masks: Tensor, boxes: Tensor, size_px: tuple[int, int], *, threshold: float
) -> Tensor:
    """Put masks of boxes into images, bilinear between the centres of their cells.

    As in the original, a cell of zeros lies around each mask, and boxes may begin anywhere.

    Args:
        masks: Probabilities inside each box, float32 (M, side, side).
        boxes: Float32 (M, 4), in px.
        size_px: Height and width of the image.
        threshold: Probability from which on a pixel belongs to the object.

    Returns:
        Bool (M, height, width).
    """
    height, width = size_px
    pasted = torch.zeros((len(masks), height, width), dtype=torch.bool, device=masks.device)
    for into, mask, box in zip(pasted, masks, boxes.tolist(), strict=True):
        left, top = (max(math.floor(each) - 1, 0) for each in box[:2])
        right, bottom = (math.ceil(each) + 1 for each in box[2:])
        part = into[top:bottom, left:right]
        if part.numel():
            part.copy_(_resampled(mask, box, top, left, part.shape) >= threshold)
    return pasted


def _resampled(mask: Tensor, box: Sequence[float], top: int, left: int, size: torch.Size) -> Tensor:
    """Return what a mask is at the pixels of a rectangle of the image, float32 (h, w)."""
    rows, columns = (
        torch.arange(first, first + number, device=mask.device) + 0.5
        for first, number in zip((top, left), size, strict=True)
    )
    width, height = (
        max(high - low, LEAST_SIDE_PX) for low, high in zip(box, box[2:], strict=False)
    )
    x = (columns - box[0]) / width * 2 - 1
    y = (rows - box[1]) / height * 2 - 1
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
    return functional.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]

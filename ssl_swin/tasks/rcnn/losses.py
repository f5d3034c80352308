"""Losses of boxes and masks, in float32.

Reference: Swin's detection configurations: L1 or smooth L1 on codes, and in the Cascade ten times
GIoU (arXiv:1902.09630) on boxes.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import generalized_box_iou_loss, roi_align

SMOOTH_L1_BETA = 1 / 9
GIOU_WEIGHT = 10.0
GIOU_EPS = 1e-6
OBJECT_SHARE = 0.5  # of a cell of a mask, from which on it belongs to the object
BoxLoss = Literal["l1", "smooth_l1", "giou"]


def box_loss(
    codes: Tensor, boxes: Tensor, truth: Tensor, *, coder: BoxCoder, kind: BoxLoss
) -> Tensor:
    """Return the loss of codes, summed over boxes and coordinates; exactly 0 of no box.

    Args:
        codes: What is predicted for each box, (R, 4).
        boxes: The boxes that codes are relative to, (R, 4).
        truth: Box of the object that each stands for, (R, 4).
        coder: Scales codes.
        kind: "l1" or "smooth_l1" on codes, or "giou", times ten, on boxes.
    """
    if kind == "giou":
        decoded = coder.decode_single(codes, boxes)
        loss = generalized_box_iou_loss(decoded, truth, reduction="sum", eps=GIOU_EPS)
        return GIOU_WEIGHT * loss  # type: ignore[no-any-return]
    target = coder.encode_single(truth, boxes)
    if kind == "smooth_l1":
        return functional.smooth_l1_loss(codes, target, beta=SMOOTH_L1_BETA, reduction="sum")
    return functional.l1_loss(codes, target, reduction="sum")


def mask_targets(masks: Tensor, objects: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Return what masks of boxes are to be: the objects' masks inside them.

    Args:
        masks: Of the objects, uint8 (N, H, W).
        objects: Index of the object of each box, int64 (R,).
        boxes: Float32 (R, 4), in px of the masks.
        side: Cells on a side of a mask.

    Returns:
        Float32 (R, side, side), 0 or 1.
    """
    rois = torch.cat([objects[:, None].to(boxes), boxes], dim=1)
    shares = roi_align(masks[:, None].float(), rois, side, sampling_ratio=0, aligned=True)
    return (shares[:, 0] >= OBJECT_SHARE).float()  # type: ignore[no-any-return]

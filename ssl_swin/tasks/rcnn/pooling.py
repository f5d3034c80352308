"""From maps of a pyramid to features of boxes.

Reference: `single_level_roi_extractor.py` of the detection code that Swin's is built on: RoIAlign
(arXiv:1703.06870) with aligned corners and as many samples as cells, in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

FINEST_CELLS = 14  # side of a box on the largest map; those below twice of it are looked up there


def pool_boxes(
    maps: Sequence[Tensor], boxes: Sequence[Tensor], *, strides: Sequence[int], side: int
) -> Tensor:
    """Cut boxes out of the map that suits their size.

    Args:
        maps: Maps (B, C, h_i, w_i), the largest first.
        boxes: Of each image, B of float32 (R_b, 4) in px.
        strides: Of the maps, in px.
        side: Cells on a side of what is returned.

    Returns:
        Float32 (R, C, side, side), image by image.
    """
    numbers = [each.new_full((len(each), 1), image) for image, each in enumerate(boxes)]
    rois = torch.cat([torch.cat(numbers), torch.cat([*boxes])], dim=1).float()
    levels = box_levels(rois[:, 1:], strides)
    pooled = rois.new_zeros((len(rois), maps[0].shape[1], side, side))
    with torch.autocast(rois.device.type, enabled=False):
        for level, (features, stride) in enumerate(zip(maps, strides, strict=True)):
            here = torch.where(levels == level)[0]
            pooled[here] = roi_align(
                features.float(), rois[here], side, 1 / stride, sampling_ratio=0, aligned=True
            )
    return pooled


def box_levels(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Return the number of the map in which each box is looked up, int64 (R,).

    Args:
        boxes: (R, 4).
        strides: Of the maps, in px, each twice the one before.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1).sqrt()
    levels = torch.floor(torch.log2(sides / (FINEST_CELLS * strides[0]) + 1e-6))
    return levels.clamp(0, len(strides) - 1).long()

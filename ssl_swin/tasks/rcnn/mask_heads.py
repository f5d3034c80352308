"""Masks of boxes: a head for each stage.

Reference: `fcn_mask_head.py` of the detection code that Swin's is built on, and its initial
weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from ssl_swin.tasks.rcnn.losses import mask_targets
from ssl_swin.tasks.rcnn.matching import Samples
from ssl_swin.tasks.rcnn.objects import Found, Objects
from ssl_swin.tasks.rcnn.pooling import pool_boxes

MASK_SIDE = 14  # cells on a side that a box is cut into; a mask has twice as many
NUM_CONVS = 4


class MaskHead(nn.Sequential):
    """Four convolutions, twice the side, and a mask for each class."""

    def __init__(self, channels: int, *, num_classes: int) -> None:
        """Draw the weights.

        Args:
            channels: Width of the maps and of the head.
            num_classes: Number of classes.
        """
        predictor = MaskRCNNPredictor(channels, channels, num_classes)
        for name, parameter in predictor.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        super().__init__(MaskRCNNHeads(channels, [channels] * NUM_CONVS, dilation=1), predictor)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return scores (R, classes, 28, 28), float32, of boxes (R, C, 14, 14)."""
        scores: Tensor = super().forward(pooled)  # type: ignore[no-untyped-call]
        return scores.float()


class MaskHeads(nn.ModuleList):
    """A mask head for each stage."""

    def __init__(
        self, channels: int, *, num_stages: int, strides: Sequence[int], num_classes: int
    ) -> None:
        """Build heads with random weights.

        Args:
            channels: Width of the maps.
            num_stages: Number of stages.
            strides: Of the maps, in px.
            num_classes: Number of classes.
        """
        super().__init__(MaskHead(channels, num_classes=num_classes) for _ in range(num_stages))
        self.strides = tuple(strides)

    def loss(
        self,
        number: int,
        maps: Sequence[Tensor],
        labels: Tensor,
        samples: Sequence[Samples],
        truth: Sequence[Objects],
    ) -> Tensor:
        """Return the mean over cells of the masks of objects; exactly 0 if there are none.

        Args:
            number: Of the stage, from 0.
            maps: Maps (B, C, h_i, w_i), the largest first.
            labels: Class of each box of all images, int64 (R,).
            samples: The boxes; those that stand for an object have masks.
            truth: What is in each image, with masks.
        """
        boxes = [each.boxes[each.positive] for each in samples]
        scores = self._scores(number, maps, boxes)
        targets = []
        for each, objects, own in zip(samples, truth, boxes, strict=True):
            assert objects.masks is not None
            indices = each.objects[each.positive]
            targets.append(mask_targets(objects.masks, indices, own, scores.shape[-1]))
        labels = labels[torch.cat([each.positive for each in samples])]
        told = scores[torch.arange(len(labels), device=labels.device), labels]
        total = functional.binary_cross_entropy_with_logits(
            told, torch.cat(targets), reduction="sum"
        )
        return total / max(told.numel(), 1)

    def add_masks(self, maps: Sequence[Tensor], found: Sequence[Found]) -> list[Found]:
        """Return detections with masks: the mean over stages of their probabilities.

        Args:
            maps: Maps (B, C, h_i, w_i), the largest first.
            found: What is detected in each image.
        """
        boxes = [each.boxes for each in found]
        labels = torch.cat([each.labels for each in found])
        rows = torch.arange(len(labels), device=labels.device)
        stages = [
            self._scores(number, maps, boxes)[rows, labels].sigmoid() for number in range(len(self))
        ]
        masks = torch.split(torch.stack(stages).mean(dim=0), [len(each) for each in boxes])
        return [each._replace(masks=own) for each, own in zip(found, masks, strict=True)]

    def _scores(self, number: int, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        pooled = pool_boxes(maps[: len(self.strides)], boxes, strides=self.strides, side=MASK_SIDE)
        scores: Tensor = self[number](pooled)
        return scores

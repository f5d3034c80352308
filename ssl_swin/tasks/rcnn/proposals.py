"""Where objects may be: torchvision's region proposal network with the values of Swin's recipes.

Reference: `rpn_head.py` and `anchor_head.py` of the detection code that Swin's is built on.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)

from ssl_swin.tasks.rcnn.losses import BoxLoss, box_loss
from ssl_swin.tasks.rcnn.matching import NO_OBJECT, BestMatcher

MOST_BEFORE_NMS = {"training": 2000, "testing": 1000}  # proposals of a map
MOST_IN_EVALUATION = 1000  # proposals of an image
NMS_IOU = 0.7
OBJECT_IOU, BACKGROUND_IOU, LEAST_BEST_IOU = 0.7, 0.3, 0.3
NUM_SAMPLES, OBJECT_SHARE = 256, 0.5  # anchors of an image that a step learns from


class Anchors(nn.Module):
    """Boxes of one size and several shapes around the first corner of every place of each map.

    Unlike torchvision's, their sides are not rounded, and distances are the strides themselves.
    """

    def __init__(self, strides: Sequence[int], *, scale: float, ratios: Sequence[float]) -> None:
        """Choose the shapes.

        Args:
            strides: Of the maps, in px.
            scale: Square root of an anchor's area, over the stride of its map.
            ratios: Height over width.
        """
        super().__init__()
        self.strides = tuple(strides)
        self.scale = scale
        self.ratios = tuple(ratios)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the anchors of all places of maps (B, C, h_i, w_i), float32 (A, 4) in px."""
        device = maps[0].device
        heights = torch.tensor(self.ratios, device=device).sqrt()
        half = torch.stack([1 / heights, heights], dim=1) / 2
        shapes = torch.cat([-half, half], dim=1) * self.scale
        levels = []
        for each, stride in zip(maps, self.strides, strict=True):
            rows, columns = (torch.arange(side, device=device) for side in each.shape[-2:])
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            places = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
            levels.append(((places + shapes) * stride).view(-1, 4))
        return torch.cat(levels)


class ProposalNetwork(RegionProposalNetwork):  # type: ignore[misc]
    """Scores anchors and moves them; the best are proposals."""

    anchor_generator: Anchors

    def __init__(
        self,
        channels: int,
        anchors: Anchors,
        *,
        num_proposals: int,
        loss: BoxLoss,
        inside_only: bool,
    ) -> None:
        """Draw the weights from N(0, 0.01^2).

        Args:
            channels: Width of the maps.
            anchors: The anchors.
            num_proposals: Proposals of an image that are kept in training.
            loss: Of boxes.
            inside_only: Whether anchors that reach beyond the image are left out of the loss.
        """
        super().__init__(
            anchors,
            RPNHead(channels, len(anchors.ratios)),
            fg_iou_thresh=OBJECT_IOU,
            bg_iou_thresh=BACKGROUND_IOU,
            batch_size_per_image=NUM_SAMPLES,
            positive_fraction=OBJECT_SHARE,
            pre_nms_top_n=MOST_BEFORE_NMS,
            post_nms_top_n={"training": num_proposals, "testing": MOST_IN_EVALUATION},
            nms_thresh=NMS_IOU,
        )
        self.proposal_matcher = BestMatcher(OBJECT_IOU, BACKGROUND_IOU, LEAST_BEST_IOU)
        self.loss: BoxLoss = loss
        self.inside_only = inside_only

    def forward(
        self,
        maps: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        truth: Sequence[Tensor] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Propose boxes.

        Args:
            maps: Maps (B, C, h_i, w_i), the largest first.
            sizes: Height and width of each image, in px.
            truth: Boxes of the objects of each image, float32 (N, 4); None where no loss is wanted.

        Returns:
            Proposals of each image, float32 (P, 4), P > 0, the best first, without a gradient; and
            the losses by name.
        """
        per_map = self.head(list(maps))
        with torch.autocast(maps[0].device.type, enabled=False):
            anchors = self.anchor_generator(maps)
            counts = [each[0].numel() for each in per_map[0]]
            scores, codes = concat_box_prediction_layers(*per_map)
            scores, codes = scores.float().view(len(sizes), -1), codes.float()
            together = anchors.repeat(len(sizes), 1)
            boxes = self.box_coder.decode_single(codes.detach(), together)
            boxes = boxes.view(len(sizes), -1, 4)
            proposals, _ = self.filter_proposals(boxes, scores, sizes, counts)
            proposals = [
                each if len(each) else each.new_tensor([[0, 0, size[1], size[0]]])
                for each, size in zip(proposals, sizes, strict=True)
            ]
            if truth is None:
                return proposals, {}
            codes = codes.view(len(sizes), -1, 4)
            return proposals, self._losses(anchors, scores, codes, sizes, truth)

    def _losses(
        self,
        anchors: Tensor,
        scores: Tensor,
        codes: Tensor,
        sizes: Sequence[tuple[int, int]],
        truth: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Return the mean over the anchors that are drawn, of all images together."""
        wrong, misplaced, number = [], [], 0
        for image, size in enumerate(sizes):
            objects = self._objects(anchors, size, truth[image])
            kinds = torch.where(objects >= 0, 1, torch.where(objects == NO_OBJECT, 0, -1))
            (positive,), (negative,) = self.fg_bg_sampler([kinds])
            chosen = torch.where(positive | negative)[0]
            number += len(chosen)
            told, target = scores[image, chosen], (kinds[chosen] > 0).float()
            wrong.append(functional.binary_cross_entropy_with_logits(told, target, reduction="sum"))
            of_object = torch.where(positive)[0]
            misplaced.append(
                box_loss(
                    codes[image, of_object],
                    anchors[of_object],
                    truth[image][objects[of_object]],
                    coder=self.box_coder,
                    kind=self.loss,
                )
            )
        parts = {"loss_rpn_class": wrong, "loss_rpn_box": misplaced}
        return {name: torch.stack(each).sum() / max(number, 1) for name, each in parts.items()}

    def _objects(self, anchors: Tensor, size: tuple[int, int], truth: Tensor) -> Tensor:
        """Return the object that each anchor stands for, int64 (A,).

        Those that take no part are as those that are neither object nor background.
        """
        matcher = self.proposal_matcher
        objects = anchors.new_full((len(anchors),), matcher.BETWEEN_THRESHOLDS, dtype=torch.int64)
        taken = torch.arange(len(anchors), device=anchors.device)
        if self.inside_only:
            limits = anchors.new_tensor([size[1], size[0]])
            is_inside = (anchors[:, :2] >= 0).all(dim=1) & (anchors[:, 2:] < limits).all(dim=1)
            taken = taken[is_inside]
        if len(truth) and len(taken):
            objects[taken] = matcher(self.box_similarity(truth, anchors[taken]))
        else:
            objects[taken] = NO_OBJECT
        return objects

"""From proposals to detections: one stage as in Mask R-CNN, or several that refine boxes.

Reference: Mask R-CNN (arXiv:1703.06870) and Cascade R-CNN (arXiv:1712.00726) as in Swin's detection
code, `standard_roi_head.py` and `cascade_roi_head.py` of the code that it is built on. Labels are
counted from 0; the background comes last.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from ssl_swin.tasks.rcnn.box_heads import BOX_SIDE, BoxHead, Stage
from ssl_swin.tasks.rcnn.losses import BoxLoss, box_loss
from ssl_swin.tasks.rcnn.mask_heads import MaskHeads
from ssl_swin.tasks.rcnn.matching import BestMatcher, Samples, draw_samples
from ssl_swin.tasks.rcnn.objects import Found, Objects, Sizes
from ssl_swin.tasks.rcnn.pooling import pool_boxes

NUM_SAMPLES, OBJECT_SHARE = 512, 0.25  # boxes of an image that a stage learns from
LEAST_SIDE_PX = 1e-2  # of what is detected
LOSSES = ("class", "box", "mask")
Background = Callable[[Sequence[Tensor]], Tensor]  # of boxes of each image: weights (R,), 0 to 1


class RoIHeads(nn.Module):
    """A box head for each stage and, where masks are wanted, a mask head for each.

    Attributes:
        stages: What each stage learns from.
        box_heads: One for each stage.
        mask_heads: One for each stage; None without masks.
    """

    def __init__(
        self,
        channels: int,
        *,
        stages: Sequence[Stage],
        strides: Sequence[int],
        num_classes: int,
        head_channels: int,
        with_masks: bool,
        loss: BoxLoss,
    ) -> None:
        """Build heads with random weights.

        Args:
            channels: Width of the maps.
            stages: The stages; several have convolutions in their box heads.
            strides: Of the maps, in px.
            num_classes: Number of classes.
            head_channels: Width of linear layers in box heads.
            with_masks: Whether there are masks.
            loss: Of boxes.
        """
        super().__init__()
        self.stages = tuple(stages)
        self.strides = tuple(strides)
        self.num_classes = num_classes
        self.loss: BoxLoss = loss
        self.coders = [BoxCoder(tuple(1 / each for each in s.deviations)) for s in stages]
        self.matchers = [
            BestMatcher(stage.iou, stage.iou, stage.iou if stage.best_match else None)
            for stage in stages
        ]
        self.sampler = BalancedPositiveNegativeSampler(NUM_SAMPLES, OBJECT_SHARE)
        self.box_heads = nn.ModuleList(
            BoxHead(
                channels,
                head_channels=head_channels,
                num_classes=num_classes,
                with_convs=len(stages) > 1,
            )
            for _ in stages
        )
        self.mask_heads = None
        if with_masks:
            self.mask_heads = MaskHeads(
                channels, num_stages=len(stages), strides=strides, num_classes=num_classes
            )

    def losses(
        self,
        maps: Sequence[Tensor],
        sizes: Sizes,
        proposals: Sequence[Tensor],
        truth: Sequence[Objects],
        *,
        parts: Collection[str] = LOSSES,
        background: Background | None = None,
    ) -> dict[str, Tensor]:
        """Return the losses of all stages by name, each with the weight of its stage.

        Args:
            maps: Maps (B, C, h_i, w_i), the largest first.
            sizes: Of the images.
            proposals: Of each image, float32 (P, 4).
            truth: What is in each image.
            parts: Which losses are wanted, of "class", "box" and "mask".
            background: Says how much boxes count in the loss of classes that stand for no object;
                None counts all alike.
        """
        losses: dict[str, Tensor] = {}
        for number, stage in enumerate(self.stages):
            samples = [
                draw_samples(
                    boxes,
                    objects.boxes,
                    matcher=self.matchers[number],
                    sampler=self.sampler,
                )
                for boxes, objects in zip(proposals, truth, strict=True)
            ]
            labels = self._labels(samples, truth)
            scores, codes = self.look(number, maps, [each.boxes for each in samples])
            told: dict[str, Tensor] = {}
            if "class" in parts:
                told["class"] = self._class_loss(scores, labels, samples, background)
            if "box" in parts:
                told["box"] = self._box_loss(number, codes, labels, samples, truth)
            if "mask" in parts and self.mask_heads is not None:
                told["mask"] = self.mask_heads.loss(number, maps, labels, samples, truth)
            suffix = f"_{number + 1}" if len(self.stages) > 1 else ""
            losses |= {f"loss_{name}{suffix}": stage.weight * each for name, each in told.items()}
            if number + 1 < len(self.stages):
                proposals = self._next_proposals(number, scores, codes, labels, samples, sizes)
        return losses

    def look(
        self, number: int, maps: Sequence[Tensor], boxes: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Look at boxes with the head of a stage.

        Args:
            number: Of the stage, from 0.
            maps: Maps (B, C, h_i, w_i), the largest first.
            boxes: Of each image, B of float32 (R_b, 4).

        Returns:
            Scores (R, classes + 1), and codes (R, classes, 4), image by image, float32.
        """
        pooled = pool_boxes(maps[: len(self.strides)], boxes, strides=self.strides, side=BOX_SIDE)
        scores, codes = self.box_heads[number](pooled)
        return scores, codes

    def moved(self, number: int, codes: Tensor, boxes: Tensor) -> Tensor:
        """Return boxes (R, 4), or (R, K, 4) for K codes of each, moved by codes of a stage."""
        several = codes if codes.ndim == 3 else codes[:, None]
        decoded = self.coders[number].decode_single(several.flatten(1), boxes)
        return torch.nan_to_num(decoded).view_as(codes)  # RoIAlign reads anywhere at a NaN

    def detect(
        self,
        maps: Sequence[Tensor],
        sizes: Sizes,
        proposals: Sequence[Tensor],
        *,
        least_score: float,
        nms_iou: float,
        most: int,
        with_masks: bool = True,
    ) -> list[Found]:
        """Detect objects, with the mean of the stages' masks.

        Args:
            maps: As in `losses`.
            sizes: Of the images.
            proposals: Of each image.
            least_score: Detections below it are dropped.
            nms_iou: Of two detections of a class that overlap more, the surer one is kept.
            most: Detections of an image, at most.
            with_masks: Whether masks are wanted, if there are any.
        """
        shares, boxes = self.judge(maps, sizes, proposals)
        counts = [len(each) for each in proposals]
        found = [
            _best(own, each[:, :-1], least_score, nms_iou, most)
            for own, each in zip(
                torch.split(boxes, counts), torch.split(shares, counts), strict=True
            )
        ]
        if self.mask_heads is None or not with_masks:
            return found
        return self.mask_heads.add_masks(maps, found)

    def judge(
        self, maps: Sequence[Tensor], sizes: Sizes, boxes: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Say what is in boxes, and where.

        Scores of all stages are averaged before the softmax; boxes are those of the last stage.

        Args:
            maps: As in `losses`.
            sizes: Of the images, to which boxes are clipped.
            boxes: Of each image, B of float32 (R_b, 4).

        Returns:
            Probabilities (R, classes + 1), the last of the background, and boxes (R, classes, 4),
            image by image.
        """
        scores, codes = self.look(0, maps, boxes)
        total = scores
        for number in range(1, len(self.stages)):
            boxes = self.refined(number - 1, scores[:, :-1].argmax(1), codes, boxes, sizes)
            scores, codes = self.look(number, maps, boxes)
            total = total + scores
        decoded = self.moved(len(self.stages) - 1, codes, torch.cat([*boxes]))
        parts = torch.split(decoded, [len(each) for each in boxes])
        clipped = [clip_boxes_to_image(each, size) for each, size in zip(parts, sizes, strict=True)]
        return (total / len(self.stages)).softmax(dim=1), torch.cat(clipped)

    def refined(
        self,
        number: int,
        labels: Tensor,
        codes: Tensor,
        boxes: Sequence[Tensor],
        sizes: Sizes,
    ) -> list[Tensor]:
        """Return boxes of each image moved by a stage as it moves their class, without a gradient.

        Args:
            number: Of the stage, from 0.
            labels: Classes of all boxes, int64 (R,).
            codes: What the stage told, (R, classes, 4).
            boxes: Of each image, B of float32 (R_b, 4).
            sizes: Of the images, to which boxes are clipped.
        """
        of_class = codes.detach()[torch.arange(len(codes), device=codes.device), labels]
        moved = self.moved(number, of_class, torch.cat([*boxes]))
        parts = torch.split(moved, [len(each) for each in boxes])
        return [clip_boxes_to_image(each, size) for each, size in zip(parts, sizes, strict=True)]

    def _labels(self, samples: Sequence[Samples], truth: Sequence[Objects]) -> Tensor:
        """Return the class of each box, int64 (R,), that of the background being the last."""
        labels = []
        for each, objects in zip(samples, truth, strict=True):
            told = each.objects.new_full((len(each.objects),), self.num_classes)
            told[each.positive] = objects.labels[each.objects[each.positive]]
            labels.append(told)
        return torch.cat(labels)

    def _class_loss(
        self,
        scores: Tensor,
        labels: Tensor,
        samples: Sequence[Samples],
        background: Background | None,
    ) -> Tensor:
        """Return the mean over boxes, weighted where no object is."""
        if background is None:
            return functional.cross_entropy(scores, labels)
        counted = background([each.boxes for each in samples])
        weights = torch.where(labels == self.num_classes, counted, torch.ones_like(counted))
        losses = functional.cross_entropy(scores, labels, reduction="none")
        return (losses * weights).sum() / weights.sum().clamp(min=1)

    def _box_loss(
        self,
        number: int,
        codes: Tensor,
        labels: Tensor,
        samples: Sequence[Samples],
        truth: Sequence[Objects],
    ) -> Tensor:
        """Return the loss of the boxes of objects, over the number of all boxes."""
        positive = torch.where(labels < self.num_classes)[0]
        boxes = torch.cat([each.boxes for each in samples])[positive]
        targets = [
            objects.boxes[each.objects[each.positive]]
            for each, objects in zip(samples, truth, strict=True)
        ]
        loss = box_loss(
            codes[positive, labels[positive]],
            boxes,
            torch.cat(targets),
            coder=self.coders[number],
            kind=self.loss,
        )
        return loss / max(len(labels), 1)

    def _next_proposals(
        self,
        number: int,
        scores: Tensor,
        codes: Tensor,
        labels: Tensor,
        samples: Sequence[Samples],
        sizes: Sizes,
    ) -> list[Tensor]:
        """Return what the next stage is to look at, without the objects' own boxes.

        A box moves as its object's class does, and one of the background as the likeliest class.
        """
        likeliest = scores.detach()[:, :-1].argmax(dim=1)
        classes = torch.where(labels == self.num_classes, likeliest, labels)
        boxes = self.refined(number, classes, codes, [each.boxes for each in samples], sizes)
        return [box[~each.are_objects] for box, each in zip(boxes, samples, strict=True)]


def _best(boxes: Tensor, shares: Tensor, least_score: float, nms_iou: float, most: int) -> Found:
    """Return the surest detections of an image, from boxes (R, classes, 4) and (R, classes)."""
    rows, labels = torch.where(shares > least_score)
    boxes, scores = boxes[rows, labels], shares[rows, labels]
    kept = remove_small_boxes(boxes, LEAST_SIDE_PX)
    boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    kept = batched_nms(boxes, scores, labels, nms_iou)[:most]
    return Found(boxes[kept], scores[kept], labels[kept], None)

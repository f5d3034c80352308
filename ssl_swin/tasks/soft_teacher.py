"""Soft Teacher: detection also learns from images without boxes, which a teacher marks.

Reference: arXiv:2106.09018 and its code (`ssod/models/soft_teacher.py`). The teacher is a moving
average of the detector. It looks at a weak view of an image; the student learns from a strong view
of the same image what the teacher is sure of: proposals and classes from objects with a high score,
boxes from objects whose box comes out alike when it is disturbed. A box that stands for no object
counts as much as the teacher believes that it is background.

Differs from the reference: the teacher proposes as in evaluation; statistics of batch norms, which
only the Cascade has, are copied from the student; there is no loss of masks here.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ssl_swin.arguments import (
    Above0,
    Count,
    Fraction,
    Name,
    NonNegative,
    Positive,
    RateBelow1,
    Several,
    checked,
)
from ssl_swin.data.affine import move_boxes
from ssl_swin.data.detect_samples import LEAST_SIDE_PX
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.segment_samples import without_filling
from ssl_swin.data.semi_samples import UnlabelledBatch, UnlabelledTransform
from ssl_swin.data.semi_views import StrongView, WeakView
from ssl_swin.objectives.base import Normalize, Progress
from ssl_swin.objectives.momentum import follow, momentum_encoder
from ssl_swin.tasks.detection import Detection
from ssl_swin.tasks.detector import Detector
from ssl_swin.tasks.rcnn.objects import Objects, Sizes

NMS_IOU, MOST_OBJECTS = 0.5, 100  # of what the teacher finds in an image
PREFIX = "unsup"


class Marked(NamedTuple):
    """What the teacher has found in one image, in px of the student's view."""

    boxes: Tensor  # float32 (N, 4)
    labels: Tensor  # int64 (N,)
    scores: Tensor  # float32 (N,)
    deviations: Tensor  # float32 (N,): of the disturbed box, over its size

    def chosen(self, which: Tensor) -> Objects:
        """Return some of them as objects to learn from."""
        return Objects(self.boxes[which], self.labels[which], None)


class SoftTeacher(nn.Module):
    """Marks objects in images without boxes, and computes the losses of learning from them.

    Attributes:
        teacher: The moving average of the detector.
        num_unlabelled: Images without boxes per device and step.
        unlabelled_root: Where they are; None for those that labels leave out.
        evaluated: Whose detections are measured and handed on.
        places: See `Objective.places`.
    """

    places: ClassVar[tuple[str, ...]] = ("unlabelled_root",)
    _step: int

    @checked
    def __init__(
        self,
        detection: Detection,
        *,
        num_unlabelled: Positive,
        unlabelled_root: Name | None,
        weight: NonNegative,
        warmup_steps: Count,
        momentum: RateBelow1,
        least_score: RateBelow1,
        sure_score: Fraction,
        jitter_copies: Several,
        jitter_ratio: Above0,
        most_deviation: Above0,
        evaluated: Literal["student", "teacher"],
        weak: WeakView,
        strong: StrongView,
    ) -> None:
        """Make the teacher, a copy of the detector.

        Args:
            detection: The detector that learns.
            num_unlabelled: Images without boxes per device and step, besides those with boxes.
            unlabelled_root: Where they are; None for those that labels leave out.
            weight: Of their losses.
            warmup_steps: Steps at the start that learn from labels alone; the teacher follows.
            momentum: What remains of the teacher at a step; less in the first steps.
            least_score: Of what the teacher finds at all.
            sure_score: Of objects from which proposals and classes are learned.
            jitter_copies: Disturbed copies of each box.
            jitter_ratio: Deviation of each of their coordinates, over width or height of the box.
            most_deviation: Of what the teacher makes of these copies, over width or height, for a
                box to be learned from; the mean over coordinates.
            evaluated: Whose detections are measured and handed on.
            weak: The teacher's view of an image.
            strong: The student's view of an image.
        """
        super().__init__()
        self.teacher = Detector(
            momentum_encoder(detection.encoder),
            num_classes=len(detection.classes),
            **detection.head,
        )
        self.teacher.rcnn.load_state_dict(detection.rcnn.state_dict())
        self.teacher.requires_grad_(False).eval()
        self.num_unlabelled = num_unlabelled
        self.unlabelled_root = unlabelled_root
        self.weight = weight
        self.warmup_steps = warmup_steps
        self.momentum = momentum
        self.least_score = least_score
        self.sure_score = sure_score
        self.jitter_copies = jitter_copies
        self.jitter_ratio = jitter_ratio
        self.most_deviation = most_deviation
        self.evaluated = evaluated
        self.weak = weak
        self.strong = strong
        self._step = 0

    def train(self, mode: bool = True) -> "SoftTeacher":
        """Set the mode; the teacher always evaluates."""
        super().train(mode)
        self.teacher.eval()
        return self

    def make_transform(self, pixels: PixelFormat, *, seed: int) -> UnlabelledTransform:
        """Return what makes both views of an encoded image without boxes; see `Objective`."""
        return UnlabelledTransform(self.weak, self.strong, pixels, seed=seed)

    def before_step(self, progress: Progress) -> None:
        """See `Objective.before_step`."""
        self._step = progress.step

    def after_step(self, detection: Detection, step: int) -> None:
        """Let the teacher follow the student, as the original does before its next step.

        Args:
            detection: The detector that learns.
            step: Number of optimiser steps made so far.
        """
        momentum = min(self.momentum, 1 - 1 / (step + 1))
        followers = self.teacher.encoder, self.teacher.rcnn
        leaders = detection.encoder, detection.rcnn
        follow(followers, leaders, momentum)
        with torch.no_grad():
            for mine, theirs in zip(followers, leaders, strict=True):
                for own, other in zip(mine.buffers(), theirs.buffers(), strict=True):
                    own.copy_(other)

    def losses(
        self, detection: Detection, batch: UnlabelledBatch, normalize: Normalize
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Learn from images without boxes.

        Args:
            detection: The detector that learns.
            batch: The images in both views.
            normalize: Turns raw pixels into what the encoder takes.

        Returns:
            Losses by name, with their weight, none in the warm-up; and what to log besides: how
            many objects an image has been marked with, for classes and for boxes.
        """
        if self._step < self.warmup_steps:
            return {}, {}
        weak_sizes, sizes = _sizes(batch.weak_sizes_px), _sizes(batch.strong_sizes_px)
        images = without_filling(normalize(batch.weak), batch.weak_sizes_px)
        levels = self._teacher_levels(images)
        marked = self._marked(levels, weak_sizes, batch.to_strong, sizes)
        sure = [each.chosen(each.scores > self.sure_score) for each in marked]
        firm = [each.chosen(each.deviations < self.most_deviation) for each in marked]

        def background(boxes: Sequence[Tensor]) -> Tensor:
            return self._background(levels, weak_sizes, batch.to_weak, boxes)

        images = without_filling(normalize(batch.strong), batch.strong_sizes_px)
        own_levels = detection.levels(images)
        rcnn = detection.rcnn
        proposals, losses = rcnn.proposals(own_levels, sizes, [each.boxes for each in sure])
        for truth, part in ((sure, "class"), (firm, "box")):
            losses |= rcnn.heads.losses(
                own_levels,
                sizes,
                proposals,
                truth,
                parts=(part,),
                background=background if part == "class" else None,
            )
        counts = {"pseudo_boxes": sure, "pseudo_boxes_firm": firm}
        logs = {
            name: images.new_tensor([float(len(each.boxes)) for each in given]).mean()
            for name, given in counts.items()
        }
        return {f"{PREFIX}_{name}": self.weight * each for name, each in losses.items()}, logs

    @torch.no_grad()
    def _teacher_levels(self, images: Tensor) -> list[Tensor]:
        return self.teacher.rcnn.levels(self.teacher.encoder.maps_any_size(images))

    @torch.no_grad()
    def _marked(
        self, levels: Sequence[Tensor], weak_sizes: Sizes, to_strong: Tensor, sizes: Sizes
    ) -> list[Marked]:
        """Return what the teacher finds, where the student sees it, but for what it cannot see."""
        found = self.teacher.rcnn.detect(
            levels,
            weak_sizes,
            least_score=self.least_score,
            nms_iou=NMS_IOU,
            most=MOST_OBJECTS,
            with_masks=False,
        )
        boxes = [each.boxes for each in found]
        deviations = self.deviations(levels, weak_sizes, boxes, [each.labels for each in found])
        marked = []
        for each, own, matrix, size in zip(found, deviations, to_strong, sizes, strict=True):
            moved = move_boxes(each.boxes, matrix, size)
            seen = (moved[:, 2:] - moved[:, :2] >= LEAST_SIDE_PX).all(dim=1)
            marked.append(Marked(moved[seen], each.labels[seen], each.scores[seen], own[seen]))
        return marked

    @torch.no_grad()
    def deviations(
        self,
        levels: Sequence[Tensor],
        sizes: Sizes,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
    ) -> list[Tensor]:
        """Return how far apart the teacher puts a box that is disturbed: box jittering.

        Draws come from torch's global generator, which the loop seeds for every step.

        Args:
            levels: Maps of the teacher's pyramid.
            sizes: Of the images.
            boxes: Of each image, float32 (N, 4).
            labels: Their classes, int64 (N,).

        Returns:
            For each image, float32 (N,): the standard deviation of each coordinate over width or
            height, the mean of the four.
        """
        copies = self.jitter_copies
        disturbed = [self._disturbed(each).flatten(0, 1) for each in boxes]
        _, told = self.teacher.rcnn.heads.judge(levels, sizes, disturbed)
        deviations = []
        for own, classes in zip(
            torch.split(told, [len(each) for each in disturbed]), labels, strict=True
        ):
            rows = torch.arange(len(classes), device=classes.device)
            placed = own.view(copies, len(classes), *own.shape[1:])[:, rows, classes]
            mean = placed.mean(dim=0)
            sides = (mean[:, 2:] - mean[:, :2]).clamp(min=1).repeat(1, 2)
            spread = (placed - mean).square().sum(dim=0) / (copies - 1)
            deviations.append((spread.sqrt() / sides).mean(dim=1))
        return deviations

    def _disturbed(self, boxes: Tensor) -> Tensor:
        """Return copies (copies, N, 4) of boxes, with coordinates drawn around theirs."""
        sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).repeat(1, 2)
        noise = torch.randn((self.jitter_copies, *boxes.shape), device=boxes.device)
        return boxes + noise * self.jitter_ratio * sides

    @torch.no_grad()
    def _background(
        self,
        levels: Sequence[Tensor],
        weak_sizes: Sizes,
        to_weak: Tensor,
        boxes: Sequence[Tensor],
    ) -> Tensor:
        """Return how sure the teacher is that boxes of the student's view are background, (R,)."""
        moved = [
            move_boxes(each, matrix, size)
            for each, matrix, size in zip(boxes, to_weak, weak_sizes, strict=True)
        ]
        probabilities, _ = self.teacher.rcnn.heads.judge(levels, weak_sizes, moved)
        return probabilities[:, -1]


def _sizes(sizes_px: Tensor) -> list[tuple[int, int]]:
    return [(height, width) for height, width in sizes_px.tolist()]

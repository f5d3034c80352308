"""Detection: Mask R-CNN or its Cascade on an encoder, with the recipes of Swin's detection code."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from annotated_types import MinLen
from torch import Tensor
from torchmetrics import Metric

from ssl_swin.arguments import Above0, Positive, checked
from ssl_swin.data.detect_samples import DetectBatch, DetectTransform, collate_detections
from ssl_swin.data.loading.paired import Companion
from ssl_swin.data.loading.protocol import Split
from ssl_swin.data.samples import Augmentation, PixelFormat
from ssl_swin.data.segment_samples import without_filling
from ssl_swin.data.segment_views import WholeImage
from ssl_swin.data.semi_samples import SemiBatch, UnlabelledBatch, collate_unlabelled
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.figure import Figure
from ssl_swin.objectives.base import Collate, Normalize, Output, Progress
from ssl_swin.plurals import counted
from ssl_swin.tasks.base import Export, Task
from ssl_swin.tasks.box_metrics import Truth, coco_metrics
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.tasks.detection_figure import detection_figure, views_figure
from ssl_swin.tasks.detections import Detections
from ssl_swin.tasks.detector import TASK, detector_export
from ssl_swin.tasks.rcnn.losses import BoxLoss
from ssl_swin.tasks.rcnn.network import RCNN
from ssl_swin.tasks.rcnn.objects import Found, Objects, Sizes

if TYPE_CHECKING:
    from ssl_swin.tasks.soft_teacher import SoftTeacher

_LOADING = """from ssl_swin import load_detector

detector = load_detector("PATH/TO/THIS/FOLDER")
found = detector.detect(pixels)  # (C, H, W) as the images it was trained on
found.boxes, found.scores, found.labels, found.masks"""


class Detection(Task):
    """A box, a class and, where the data has them, a mask for every object.

    Attributes:
        rcnn: What detects objects on the maps of the encoder.
        with_masks: Whether there are masks.
        inference: How held-out images are looked at.
        semi: Learns from images without boxes; None where there are none.
    """

    title = TASK
    tags = ("object-detection",)
    monitor = "map"
    result_title = "box AP"
    needs_labels = False
    folder = "detector"
    job = "detect"
    members: ClassVar[tuple[str, ...]] = ("boxes",)

    @checked
    def __init__(
        self,
        encoder: Encoder,
        classes: Sequence[str],
        *,
        cascade: bool,
        with_masks: bool | None,
        channels: Positive,
        head_channels: Positive,
        anchor_scale: Above0,
        anchor_ratios: Annotated[Sequence[Above0], MinLen(1)],
        anchors_inside: bool,
        num_proposals: Positive,
        proposal_loss: BoxLoss,
        box_loss: BoxLoss,
        inference: DetectInference,
    ) -> None:
        """Put a fresh R-CNN on the encoder.

        Args:
            encoder: Pretrained, or with random weights; it makes maps of images of any size.
            classes: Names of the classes, by label.
            cascade: Whether boxes are refined in three stages.
            with_masks: Whether each object gets a mask. None is for a job, which asks the data.
            channels: Width of the pyramid, and of convolutions in heads.
            head_channels: Width of linear layers in box heads.
            anchor_scale: Square root of an anchor's area over the stride of its map.
            anchor_ratios: Height over width of anchors.
            anchors_inside: Whether anchors that reach beyond an image are left out of the loss.
            num_proposals: Of an image, in training.
            proposal_loss: Of the boxes of proposals: "l1", "smooth_l1" or "giou".
            box_loss: Of the boxes of heads, likewise.
            inference: How held-out images are looked at.

        Raises:
            UserError: If there is no class, nothing says whether there are
                masks, or the encoder makes no such maps.
        """
        super().__init__(encoder, classes)
        if not self.classes:
            raise UserError("detection needs a class: give their names, as classes=[tree]")
        if with_masks is None:
            raise UserError(
                "with_masks=null is told by the data, which nobody has looked at here: give true "
                "or false"
            )
        self.with_masks = with_masks
        self.inference = inference
        self.head: dict[str, Any] = {
            "cascade": cascade,
            "with_masks": with_masks,
            "channels": channels,
            "head_channels": head_channels,
            "anchor_scale": anchor_scale,
            "anchor_ratios": list(anchor_ratios),
            "anchors_inside": anchors_inside,
            "num_proposals": num_proposals,
            "proposal_loss": proposal_loss,
            "box_loss": box_loss,
        }
        self.rcnn = RCNN(self.encoder, num_classes=len(self.classes), **self.head)
        self.semi: SoftTeacher | None = None

    def make_evaluation(self, crop_ratio: float) -> Augmentation:
        """See `Objective.make_evaluation`: whole images, which `inference` looks at."""
        return WholeImage()

    def make_transform(
        self, augmentation: Augmentation, pixels: PixelFormat, *, seed: int
    ) -> DetectTransform:
        """See `Objective.make_transform`; crowds are kept where nothing is trained on them."""
        return DetectTransform(
            augmentation,
            pixels,
            seed=seed,
            with_masks=self.with_masks,
            keep_crowd=isinstance(augmentation, WholeImage),
            num_classes=len(self.classes),
        )

    def make_collate(self) -> Collate:
        """See `Objective.make_collate`."""
        return collate_detections

    def make_companion(self, split: Split, pixels: PixelFormat, *, seed: int) -> Companion:
        """See `Objective.make_companion`."""
        if self.semi is None:
            return super().make_companion(split, pixels, seed=seed)
        assert pixels.channels is not None and pixels.dtype is not None
        self.semi.strong.check_samples(channels=pixels.channels, dtype=pixels.dtype)
        transform = self.semi.make_transform(pixels, seed=seed)
        return Companion(split, transform, collate_unlabelled, self.semi.num_unlabelled, SemiBatch)

    def forward(
        self, batch: DetectBatch | SemiBatch | UnlabelledBatch, normalize: Normalize
    ) -> Output:
        """Learn from images, some of which may hold no object, and with `semi` from more of them.

        What fills images up is 0 after normalising.
        """
        losses: dict[str, Tensor] = {}
        more: dict[str, Tensor] = {}
        if not isinstance(batch, UnlabelledBatch):
            labelled = _with_boxes(batch)
            images = without_filling(normalize(labelled.pixels), labelled.sizes_px)
            objects = objects_of(labelled, self.with_masks)
            losses = self.rcnn.losses(self.levels(images), image_sizes(labelled), objects)
        if not isinstance(batch, DetectBatch):
            assert self.semi is not None
            unlabelled = batch.unlabelled if isinstance(batch, SemiBatch) else batch
            taught, more = self.semi.losses(self, unlabelled, normalize)
            losses |= taught
        logs = {name: each.detach() for name, each in losses.items()} | more
        nothing = torch.zeros((), device=next(self.rcnn.parameters()).device)
        return Output(sum(losses.values(), start=nothing), logs)

    def before_step(self, progress: Progress) -> None:
        """See `Objective.before_step`."""
        if self.semi is not None:
            self.semi.before_step(progress)

    def after_step(self, step: int) -> None:
        """See `Objective.after_step`."""
        if self.semi is not None:
            self.semi.after_step(self, step)

    def detect(
        self, images: Tensor, sizes: Sizes, *, least_score: float, nms_iou: float, most: int
    ) -> list[Found]:
        """Detect objects in normalised images; see `Detector.forward`."""
        encoder, rcnn = self._evaluated
        levels = rcnn.levels(encoder.maps_any_size(images))
        return rcnn.detect(levels, sizes, least_score=least_score, nms_iou=nms_iou, most=most)

    def detections(self, batch: DetectBatch, normalize: Normalize) -> list[Detections]:
        """Return what is detected in each image of a held-out batch, in px of the image."""
        images = normalize(batch.pixels)
        return [
            self.inference.detections(self.detect, image[:, :height, :width])
            for image, (height, width) in zip(images, image_sizes(batch), strict=True)
        ]

    def new_metrics(self) -> dict[str, Metric]:
        """COCO's average precision and recall of boxes and, where there are any, of masks."""
        return coco_metrics(len(self.classes), with_masks=self.with_masks)

    def evaluate(
        self, metrics: Mapping[str, Metric], batch: DetectBatch | SemiBatch, normalize: Normalize
    ) -> None:
        """See `Objective.evaluate`; each image at its own size, without what fills it up."""
        batch = _with_boxes(batch)
        found = self.detections(batch, normalize)
        for image, detections in enumerate(found):
            truth = Truth(
                batch.boxes[image],
                batch.labels[image],
                None if batch.masks is None else batch.masks[image],
                batch.crowd[image],
                batch.areas[image],
            )
            for metric in metrics.values():
                metric.update(detections, truth)

    def preview(self, batch: DetectBatch | UnlabelledBatch, normalize: Normalize) -> Figure:
        """The images and what is in them; of images without boxes, what both networks see."""
        if isinstance(batch, UnlabelledBatch):
            return views_figure(
                {
                    "weak view": (normalize(batch.weak), batch.weak_sizes_px),
                    "strong view": (normalize(batch.strong), batch.strong_sizes_px),
                }
            )
        return detection_figure(normalize(batch.pixels), batch, [], self.classes)

    def figure(self, batch: DetectBatch, normalize: Normalize) -> Figure:
        """Truth and prediction."""
        found = self.detections(batch, normalize)
        return detection_figure(normalize(batch.pixels), batch, found, self.classes)

    def export(self) -> Export:
        """See `Task.export`."""
        encoder, rcnn = self._evaluated
        return detector_export(
            encoder,
            rcnn,
            classes=self.classes,
            head=self.head,
            inference=self.inference,
        )

    def loading(self) -> str:
        """See `Task.loading`."""
        return _LOADING

    def describe(self) -> str:
        """See `Objective.describe`."""
        kind = "Mask" if self.with_masks else "Faster"
        network = f"Cascade {kind} R-CNN" if self.head["cascade"] else f"{kind} R-CNN"
        network = network.replace("Cascade Faster", "Cascade")
        return f"detection of {counted(len(self.classes), 'class')}, {network}"

    def levels(self, images: Tensor) -> list[Tensor]:
        """Return the pyramid of normalised images (B, C, H, W); see `RCNN.levels`."""
        return self.rcnn.levels(self.encoder.maps_any_size(images))

    @property
    def _evaluated(self) -> tuple[Encoder, RCNN]:
        """Return what is measured and handed on: this detector, or its teacher."""
        if self.semi is None or self.semi.evaluated == "student":
            return self.encoder, self.rcnn
        return self.semi.teacher.encoder, self.semi.teacher.rcnn


def _with_boxes(batch: DetectBatch | SemiBatch) -> DetectBatch:
    """Return those images of a batch that have boxes."""
    return batch.labelled if isinstance(batch, SemiBatch) else batch


def image_sizes(batch: DetectBatch) -> list[tuple[int, int]]:
    """Return height and width of each image of a batch, in px."""
    return [(height, width) for height, width in batch.sizes_px.tolist()]


def objects_of(batch: DetectBatch, with_masks: bool) -> list[Objects]:
    """Return what is in each image of a batch, with masks where they are wanted."""
    masks: Sequence[Tensor | None] = [None] * len(batch.boxes)
    if with_masks:
        assert batch.masks is not None  # which the transform has seen to
        masks = batch.masks
    return [Objects(*each) for each in zip(batch.boxes, batch.labels, masks, strict=True)]

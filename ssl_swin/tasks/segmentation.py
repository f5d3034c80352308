"""Semantic segmentation: UPerNet on an encoder, with the recipe of Swin's segmentation code."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import MeanMetric, Metric

from ssl_swin.arguments import NonNegative, Positive, RateBelow1, SizePx, checked
from ssl_swin.data.geometry import Size
from ssl_swin.data.mask_classes import IGNORED, MaskClasses
from ssl_swin.data.samples import Augmentation, PixelFormat
from ssl_swin.data.segment_samples import (
    SegmentBatch,
    SegmentTransform,
    collate_segments,
    without_filling,
)
from ssl_swin.data.segment_views import WholeImage, size_within
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import as_size
from ssl_swin.errors import UserError
from ssl_swin.figure import ClassColumn, Figure, ImageColumn, LabelColumn, MistakeColumn
from ssl_swin.objectives.base import Collate, Normalize, Output
from ssl_swin.plurals import counted
from ssl_swin.tasks.base import Export, Task
from ssl_swin.tasks.pixel_loss import Mean, pixel_loss
from ssl_swin.tasks.pixel_metrics import MeanClassAccuracy, MeanIoU, PixelAccuracy
from ssl_swin.tasks.segmenter import (
    AUXILIARY_FILE,
    TASK,
    auxiliary_head,
    fresh_parts,
    segmenter_export,
)
from ssl_swin.tasks.segmenting import Inference

FIGURE_SHORT_PX, FIGURE_LONG_PX = 256, 512  # that images of a figure are scaled down to
PREVIEW_SHORT_PX, PREVIEW_LONG_PX = 512, 1024  # likewise, of what is trained on
_LOADING = """from ssl_swin import load_segmenter

segmenter = load_segmenter("PATH/TO/THIS/FOLDER")
classes = segmenter.segment(pixels)  # (C, H, W) as the images it was trained on, to (H, W)"""


class Segmentation(Task):
    """A class for every pixel: UPerNet, with an auxiliary head in training.

    Attributes:
        norms: A norm for each map of the encoder.
        decode_head: UPerNet's head.
        auxiliary_head: Sees the last map but one, in training alone.
        inference: How held-out images are looked at.
        masks: What the values of masks stand for.
    """

    title = TASK
    tags = ("image-segmentation",)
    monitor = "miou"
    result_title = "mIoU"
    needs_labels = False
    folder = "segmenter"
    job = "segment"
    members: ClassVar[tuple[str, ...]] = ("mask",)

    @checked
    def __init__(
        self,
        encoder: Encoder,
        classes: Sequence[str],
        *,
        crop_px: SizePx,
        head_channels: Positive,
        auxiliary_channels: Positive,
        auxiliary_weight: NonNegative,
        dropout: RateBelow1,
        loss_mean: Mean,
        masks: MaskClasses,
        inference: Inference,
    ) -> None:
        """Put fresh heads on the encoder.

        Args:
            encoder: Pretrained, or with random weights; it makes maps of images of any size.
            classes: Names of the classes, by label.
            crop_px: Side of the crops that are trained on, or (height, width).
            head_channels: Width of UPerNet's head.
            auxiliary_channels: Width of the auxiliary head.
            auxiliary_weight: Factor on its loss.
            dropout: Probability that a channel is dropped before the last layer of a head.
            loss_mean: Whether the loss is a mean over "all" pixels, those without a class counting
                0, or over "labelled" ones.
            masks: What the values of masks stand for.
            inference: How held-out images are looked at.

        Raises:
            UserError: If there are less than two classes, or the encoder makes no such maps.
        """
        super().__init__(encoder, classes)
        if len(self.classes) < 2:
            raise UserError(
                f"segmentation needs two classes or more, got {len(self.classes)}: give their "
                "names or their number, as classes=150"
            )
        masks.check_classes(len(self.classes))
        self.crop_px = as_size(crop_px)
        self.head_channels = head_channels
        self.auxiliary_weight = auxiliary_weight
        self.loss_mean: Mean = loss_mean
        self.masks = masks
        self.inference = inference
        self.norms, self.decode_head = fresh_parts(
            self.encoder, channels=head_channels, num_classes=len(self.classes), dropout=dropout
        )
        self.auxiliary_head = auxiliary_head(
            self.encoder,
            channels=auxiliary_channels,
            num_classes=len(self.classes),
            dropout=dropout,
        )

    @property
    def view_size_px(self) -> Size:
        """See `Objective.view_size_px`: that of the crops."""
        return self.crop_px

    def make_evaluation(self, crop_ratio: float) -> Augmentation:
        """See `Objective.make_evaluation`: whole images, which `inference` looks at."""
        return WholeImage()

    def make_transform(
        self, augmentation: Augmentation, pixels: PixelFormat, *, seed: int
    ) -> SegmentTransform:
        """See `Objective.make_transform`."""
        return SegmentTransform(
            augmentation,
            pixels,
            self.masks,
            num_classes=len(self.classes),
            seed=seed,
            least_px=(0, 0) if isinstance(augmentation, WholeImage) else self.crop_px,
        )

    def make_collate(self) -> Collate:
        """See `Objective.make_collate`."""
        return collate_segments

    def scores(self, images: Tensor) -> Tensor:
        """Return scores (B, classes, H/4, W/4), sides rounded up, of images (B, C, H, W)."""
        scores: Tensor = self.decode_head(self._maps(images))
        return scores

    def forward(self, batch: SegmentBatch, normalize: Normalize) -> Output:
        """Score crops with both heads; what fills them up is 0 after normalising."""
        images = without_filling(normalize(batch.pixels), batch.sizes_px)
        maps = self._maps(images)
        loss = self._loss(self.decode_head(maps), batch)
        auxiliary = self._loss(self.auxiliary_head(maps[-2]), batch)
        logs = {"loss_decode": loss.detach(), "loss_auxiliary": auxiliary.detach()}
        return Output(loss + self.auxiliary_weight * auxiliary, logs)

    def new_metrics(self) -> dict[str, Metric]:
        """Cross entropy, mIoU, and accuracy by class and by pixel, in [0, 1]."""
        number = len(self.classes)
        return {
            "loss": MeanMetric(),
            "miou": MeanIoU(number),
            "class_accuracy": MeanClassAccuracy(number),
            "pixel_accuracy": PixelAccuracy(number),
        }

    def evaluate(
        self, metrics: Mapping[str, Metric], batch: SegmentBatch, normalize: Normalize
    ) -> None:
        """See `Objective.evaluate`; each image at its own size, without what fills it up."""
        for image, classes in batch.images(normalize(batch.pixels)):
            probabilities = self.inference.probabilities(self.scores, image)
            predicted = probabilities.argmax(dim=0)
            for name in ("miou", "class_accuracy", "pixel_accuracy"):
                metrics[name].update(predicted, classes)
            if (number := int((classes != IGNORED).sum())) > 0:
                logs = probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()
                loss = functional.nll_loss(logs[None], classes.long()[None], ignore_index=IGNORED)
                metrics["loss"].update(loss, weight=number)

    def check_batch_size(self, batch_size: int, global_batch_size: int) -> None:
        """Refuse single images, of which one value is left to the norm of the whole map.

        Raises:
            UserError: If a device gets one image a step.
        """
        if batch_size < 2:
            raise UserError(
                "batch_size=1 leaves one value to a batch norm of UPerNet's head: give "
                "batch_size=2 or more, with trainer.accumulate_grad_batches if memory is short"
            )

    def preview(self, batch: SegmentBatch, normalize: Normalize) -> Figure:
        """The images, and their classes over them."""
        pairs = batch.images(normalize(batch.pixels))
        images, labels = _tiles(pairs, PREVIEW_SHORT_PX, PREVIEW_LONG_PX)
        return (
            ImageColumn("input", images),
            ClassColumn("classes", images, labels=labels, classes=self.classes),
        )

    def figure(self, batch: SegmentBatch, normalize: Normalize) -> Figure:
        """Input, truth, prediction, and where they differ."""
        pairs = batch.images(normalize(batch.pixels))
        predicted = [
            (image, self.inference.probabilities(self.scores, image).argmax(dim=0))
            for image, _ in pairs
        ]
        images, truth = _tiles(pairs, FIGURE_SHORT_PX, FIGURE_LONG_PX)
        _, told = _tiles(predicted, FIGURE_SHORT_PX, FIGURE_LONG_PX)
        wrong = (told != truth).int().masked_fill(truth == IGNORED, IGNORED)
        return (
            ImageColumn("input", images),
            LabelColumn("truth", truth),
            LabelColumn("prediction", told),
            MistakeColumn("error", wrong),
        )

    def export(self) -> Export:
        """See `Task.export`; the auxiliary head is left out."""
        return segmenter_export(
            self.encoder,
            self.norms,
            self.decode_head,
            classes=self.classes,
            inference=self.inference,
            masks=self.masks,
        )

    def extra_weights(self) -> dict[str, dict[str, Tensor]]:
        """See `Objective.extra_weights`: the auxiliary head, for a training elsewhere."""
        return {AUXILIARY_FILE: self.auxiliary_head.state_dict()}

    def loading(self) -> str:
        """See `Task.loading`."""
        return _LOADING

    def describe(self) -> str:
        """See `Objective.describe`."""
        return f"segmentation into {counted(len(self.classes), 'class')}, UPerNet"

    def _maps(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.norms(self.encoder.maps_any_size(images))
        return maps

    def _loss(self, scores: Tensor, batch: SegmentBatch) -> Tensor:
        return pixel_loss(scores, batch.classes, mean=self.loss_mean)


def _tiles(
    pairs: Sequence[tuple[Tensor, Tensor]], short_px: int, long_px: int
) -> tuple[Tensor, Tensor]:
    """Return images (B, C, H, W) and classes (B, H, W) within a size, filled up to be stacked."""
    images = [_fitting(image, short_px, long_px, is_classes=False) for image, _ in pairs]
    classes = [_fitting(each, short_px, long_px, is_classes=True) for _, each in pairs]
    return _together(images, 0), _together(classes, IGNORED)


def _fitting(values: Tensor, short_px: int, long_px: int, *, is_classes: bool) -> Tensor:
    """Scale an image (C, H, W) or classes (H, W) down to the size of a figure's tile."""
    size = (values.shape[-2], values.shape[-1])
    target = size_within(size, short_px, long_px)
    if target[0] >= size[0]:
        return values
    if is_classes:
        scaled = functional.interpolate(values[None, None].float(), target, mode="nearest-exact")
        return scaled[0, 0].to(values.dtype)
    return functional.interpolate(values[None], target, mode="bilinear", antialias=True)[0]


def _together(parts: Sequence[Tensor], fill: int) -> Tensor:
    """Stack what differs in size, filled up on the right and at the bottom."""
    height, width = (max(part.shape[side] for part in parts) for side in (-2, -1))
    return torch.stack(
        [
            functional.pad(
                part, (0, width - part.shape[-1], 0, height - part.shape[-2]), value=fill
            )
            for part in parts
        ]
    )

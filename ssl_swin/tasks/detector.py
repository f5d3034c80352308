"""A network that detects objects: an encoder and R-CNN on its maps."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.tasks.base import Export
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.tasks.rcnn.network import RCNN
from ssl_swin.tasks.rcnn.objects import Found, Sizes

TASK = "detection"  # of a folder's config.json


class Detector(nn.Module):
    """Maps of an encoder, and R-CNN on them.

    Attributes:
        encoder: The encoder.
        rcnn: What detects objects on its maps.
    """

    def __init__(self, encoder: Encoder, *, num_classes: int, **settings: Any) -> None:
        """Put a fresh R-CNN on an encoder.

        Args:
            encoder: Pretrained, or with random weights.
            num_classes: Number of classes.
            settings: Of `RCNN`.

        Raises:
            UserError: If the encoder makes no maps of images of any size.
        """
        super().__init__()
        self.encoder = encoder
        self.rcnn = RCNN(encoder, num_classes=num_classes, **settings)

    def forward(
        self, images: Tensor, sizes: Sizes, *, least_score: float, nms_iou: float, most: int
    ) -> list[Found]:
        """Detect objects in normalised images (B, C, H, W); see `RoIHeads.detect`.

        Args:
            images: Filled up with zeros on the right and at the bottom.
            sizes: Height and width of each image before that.
            least_score: Detections below it are dropped.
            nms_iou: Of two detections of a class that overlap more, the surer one is kept.
            most: Detections of an image, at most.
        """
        levels = self.rcnn.levels(self.encoder.maps_any_size(images))
        return self.rcnn.detect(levels, sizes, least_score=least_score, nms_iou=nms_iou, most=most)


def detector_export(
    encoder: Encoder,
    rcnn: RCNN,
    *,
    classes: Sequence[str],
    head: Mapping[str, Any],
    inference: DetectInference,
) -> Export:
    """Return what is handed on of a detector.

    Args:
        encoder: The encoder.
        rcnn: On its maps.
        classes: Names of the classes, by label.
        head: Settings of `RCNN`.
        inference: How images are looked at.
    """
    settings = {
        "task": TASK,
        "label_names": list(classes),
        "head": dict(head),
        "inference": asdict(inference),
    }
    return Export(detector_state(encoder, rcnn), settings, len(classes))


def detector_state(encoder: Encoder, rcnn: RCNN) -> dict[str, Tensor]:
    """Return the tensors of a detector: those of timm's encoder as `backbone.NAME`."""
    parts: Mapping[str, Any] = {"backbone": encoder.model, "rcnn": rcnn}
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in parts.items()
        for name, tensor in module.state_dict().items()
    }

"""A network that tells the class of every pixel: an encoder's maps and UPerNet's head."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.encoders.dense_encoder import MapNorms, check_dense, leave_out_last_norm
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.tasks.base import Export
from ssl_swin.tasks.segmenting import Inference
from ssl_swin.tasks.upernet import FCNHead, UPerHead

AUXILIARY_FILE = "auxiliary_head.safetensors"  # beside a segmenter, which works without it

TASK = "segmentation"  # of a folder's config.json
LEAST_STAGES = 2  # the auxiliary head sees the last map but one


class Segmenter(nn.Module):
    """Maps of an encoder, normed, and a head that scores each place.

    Attributes:
        encoder: The encoder.
        norms: A norm for each of its maps.
        decode_head: The head.
    """

    def __init__(self, encoder: Encoder, *, channels: int, num_classes: int) -> None:
        """Put fresh norms and a fresh head on an encoder.

        Args:
            encoder: Pretrained, or with random weights.
            channels: Width of the head.
            num_classes: Number of classes.

        Raises:
            UserError: If the encoder makes no maps of images of any size.
        """
        super().__init__()
        parts = fresh_parts(encoder, channels=channels, num_classes=num_classes, dropout=0.0)
        self.encoder = encoder
        self.norms, self.decode_head = parts

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (B, classes, H/4, W/4), sides rounded up, of images (B, C, H, W)."""
        scores: Tensor = self.decode_head(self.norms(self.encoder.maps_any_size(images)))
        return scores


def auxiliary_head(
    encoder: Encoder, *, channels: int, num_classes: int, dropout: float = 0.0
) -> FCNHead:
    """Return a fresh auxiliary head, which sees the last map but one in training.

    Args:
        encoder: The encoder.
        channels: Width of the head.
        num_classes: Number of classes.
        dropout: Of the head.
    """
    width = encoder.stage_dims[-2]
    return FCNHead(width, channels=channels, num_classes=num_classes, dropout=dropout)


def fresh_parts(
    encoder: Encoder, *, channels: int, num_classes: int, dropout: float
) -> tuple[MapNorms, UPerHead]:
    """Return norms and head for an encoder, whose last norm is left out of training.

    Args:
        encoder: The encoder.
        channels: Width of the head.
        num_classes: Number of classes.
        dropout: Of the head.

    Raises:
        UserError: As `Segmenter`.
    """
    check_dense(encoder)
    if len(encoder.stage_dims) < LEAST_STAGES:
        raise UserError(
            f"UPerNet joins maps of two stages or more, and this {encoder.title} has "
            f"{len(encoder.stage_dims)}"
        )
    leave_out_last_norm(encoder)
    head = UPerHead(encoder.stage_dims, channels=channels, num_classes=num_classes, dropout=dropout)
    return MapNorms(encoder.stage_dims), head


def segmenter_export(
    encoder: Encoder,
    norms: nn.Module,
    decode_head: UPerHead,
    *,
    classes: Sequence[str],
    inference: Inference,
    masks: MaskClasses,
) -> Export:
    """Return what is handed on of a segmenter.

    Args:
        encoder: The encoder.
        norms: A norm for each of its maps.
        decode_head: The head.
        classes: Names of the classes, by label.
        inference: How images are looked at.
        masks: What the values of masks stand for.
    """
    settings = {
        "task": TASK,
        "label_names": list(classes),
        "head": {"channels": decode_head.conv_seg.in_channels},
        "inference": asdict(inference),
        "masks": masks.settings(),
    }
    return Export(segmenter_state(encoder, norms, decode_head), settings, len(classes))


def segmenter_state(
    encoder: Encoder, norms: nn.Module, decode_head: nn.Module
) -> dict[str, Tensor]:
    """Return the tensors of a segmenter: those of timm's encoder as `backbone.NAME`."""
    parts: Mapping[str, Any] = {
        "backbone": encoder.model,
        "norms": norms,
        "decode_head": decode_head,
    }
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in parts.items()
        for name, tensor in module.state_dict().items()
    }

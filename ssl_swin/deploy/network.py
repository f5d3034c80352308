"""What is exported: raw pixels in, normalisation inside, one answer or several out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.inference.predictors.classification import ClassPredictor
from ssl_swin.pixels import normalize
from ssl_swin.tasks.upernet import upsampled
from ssl_swin.weights.backbone import load_backbone
from ssl_swin.weights.kept_head import read_head
from ssl_swin.weights.segmenter import is_segmenter, load_segmenter

Outputs = Literal["scores", "embedding", "stages"]
PIXEL_SCORES = "pixel_scores"  # of each class at every pixel, which a segmenter gives
PixelType = Literal["uint8", "float32"]


class Network(NamedTuple):
    """A network to export, and what a reader of the file has to know.

    Attributes:
        module: Maps pixels (B, C, H, W), uint8 or float32, to one tensor or a tuple.
        outputs: What it gives.
        output_names: Of each tensor.
        encoder: Inside it.
        mean: Normalisation, per channel, of pixel values in [0, 1]; inside the module.
        std: The same.
        crop_ratio: Side of the centre crop that images are to be prepared with.
        classes: Names by score; empty without scores.
        temperature: That scores are divided by for calibrated probabilities.
        notes: Lines on what was found when it was loaded.
        other_size_px: Height and width of the images, if not the encoder's own.
    """

    module: "PixelsToOutputs"
    outputs: str
    output_names: tuple[str, ...]
    encoder: Encoder
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_ratio: float
    classes: tuple[str, ...] = ()
    temperature: float = 1.0
    notes: tuple[str, ...] = ()
    other_size_px: tuple[int, int] | None = None

    @property
    def img_size_px(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.other_size_px or self.encoder.img_size_px


class PixelsToOutputs(nn.Module):
    """An encoder, classifier or segmenter behind the normalisation of its training."""

    def __init__(
        self,
        model: nn.Module,
        outputs: str,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Freeze a network.

        Args:
            model: A classifier for scores, a segmenter for those of pixels, else an encoder.
            outputs: What is wanted.
            mean: Per channel, of pixel values in [0, 1].
            std: Per channel.
        """
        super().__init__()
        self.model: Any = model.eval().requires_grad_(False)
        self.outputs = outputs
        self.mean, self.std = tuple(mean), tuple(std)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what is wanted.

        Args:
            pixels: (B, C, H, W).

        Returns:
            Scores (B, classes), scores of pixels (B, classes, H, W), embeddings (B, C), or a map
            (B, C_i, H_i, W_i) per stage.
        """
        images = normalize(pixels, self.mean, self.std)
        if self.outputs == "stages":
            return tuple(self.model.stages(images))
        last: Tensor = self.model(images)
        if self.outputs == PIXEL_SCORES:
            return upsampled(last.float(), images)
        return self.model.pool(last) if self.outputs == "embedding" else last


def load_network(
    folder: Path, outputs: Outputs | None, img_size_px: tuple[int, int] | None = None
) -> Network:
    """Load the network of a folder.

    Args:
        folder: A backbone's, a classifier's or a segmenter's.
        outputs: What is wanted; None is scores of a classifier or segmenter, and embeddings of a
            backbone.
        img_size_px: Height and width of the images, of a segmenter; None is the encoder's own.

    Raises:
        UserError: If scores are wanted of a backbone, something else of a segmenter, or another
            size of what is for one.
    """
    if is_segmenter(folder):
        return _segmenter(folder, outputs, img_size_px)
    if img_size_px is not None:
        raise UserError(
            f"--img-size-px is for a segmenter, which takes any: {folder} is for images of one "
            "size; load it at another, load_backbone(folder, img_size_px=...), and save that"
        )
    has_head = read_head(folder) is not None
    wanted: Outputs = outputs or ("scores" if has_head else "embedding")
    if wanted == "scores":
        if not has_head:
            raise UserError(
                f"{folder} is a backbone, which has no scores: give --outputs embedding or stages, "
                "or the run of a fine-tuning"
            )
        found = ClassPredictor.load(folder)
        return Network(
            PixelsToOutputs(found.model, wanted, found.mean, found.std),
            wanted,
            ("scores",),
            found.encoder,
            tuple(found.mean),
            tuple(found.std),
            found.crop_ratio,
            found.classes,
            found.temperature,
            tuple(found.notes),
        )
    backbone = load_backbone(folder)
    encoder = backbone.encoder
    names = tuple(f"stage{number + 1}" for number in range(len(encoder.stage_dims)))
    return Network(
        PixelsToOutputs(encoder, wanted, backbone.mean, backbone.std),
        wanted,
        names if wanted == "stages" else ("embedding",),
        encoder,
        backbone.mean,
        backbone.std,
        backbone.crop_ratio,
    )


def _segmenter(
    folder: Path, outputs: Outputs | None, img_size_px: tuple[int, int] | None
) -> Network:
    if outputs not in (None, "scores"):
        raise UserError(
            f"{folder} is a segmenter, which gives scores: leave out --outputs {outputs}, or "
            "export the backbone beside it"
        )
    found = load_segmenter(folder)
    return Network(
        PixelsToOutputs(found.model, PIXEL_SCORES, found.mean, found.std),
        PIXEL_SCORES,
        (PIXEL_SCORES,),
        found.model.encoder,
        found.mean,
        found.std,
        1.0,
        found.classes,
        other_size_px=img_size_px,
    )


def example_pixels(network: Network, batch_size: int, dtype: PixelType, *, seed: int = 0) -> Tensor:
    """Return noise as pixels (B, C, H, W).

    Args:
        network: Takes them.
        batch_size: B.
        dtype: Of the pixels; float32 is drawn around the network's mean.
        seed: Of the noise.
    """
    noise = torch.Generator().manual_seed(seed)
    size = (batch_size, network.encoder.in_chans, *network.img_size_px)
    if dtype == "uint8":
        return torch.randint(0, 256, size, generator=noise, dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (network.mean, network.std))
    return torch.randn(size, generator=noise) * std + mean

"""Vectors of images: the one way from pixels to what `embed` returns or writes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_swin.data.batch import LabeledBatch, collate_labeled
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.loading.in_order import InOrderLoader
from ssl_swin.data.loading.protocol import BadSample, LoaderConfig
from ssl_swin.data.samples import LabeledTransform
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.pixels import normalize
from ssl_swin.probing.features import Pooling, Tap, pooled
from ssl_swin.weights.backbone import Backbone

Precision = Literal["float32", "bfloat16", "float16"]
Compute = Callable[[Tensor], dict[str, Tensor]]


class Rows(NamedTuple):
    """Results of images in a row.

    Attributes:
        names: N, of the images that could be read, in their order.
        labels: int64 (N,), -1 for none.
        values: By name, (N, ...), on the CPU; where an image has several, longer ones.
        bad_samples: Images that could not be read.
        num_images: Read or not.
    """

    names: list[str]
    labels: Tensor
    values: dict[str, Tensor]
    bad_samples: list[BadSample]
    num_images: int


@dataclass(frozen=True)
class View:
    """What the network sees of an image.

    Attributes:
        pixels: What a decoded image is.
        crop_ratio: Side of the centre crop over the shorter side of an image, in (0, 1].
    """

    pixels: PixelFormat
    crop_ratio: float = 0.875


@dataclass(frozen=True)
class Wanted:
    """Which vectors.

    Attributes:
        stage: Stage of the encoder, from 1; None is the last.
        pooling: "mean" or "max" over the map.
        normalize: Whether vectors are scaled to length 1.
    """

    stage: int | None = None
    pooling: Pooling = "mean"
    normalize: bool = False

    def tap(self, encoder: Encoder) -> Tap:
        """Return where features are taken.

        Raises:
            UserError: If there is no such stage.
        """
        number = len(encoder.stage_dims) if self.stage is None else self.stage
        if not 1 <= number <= len(encoder.stage_dims):
            raise UserError(f"there is no stage {number}: they are 1 to {len(encoder.stage_dims)}")
        return Tap(number, self.pooling)


def vector_function(
    backbone: Backbone, wanted: Wanted, *, device: torch.device, precision: Precision = "float32"
) -> Compute:
    """Return what maps pixels (B, C, H, W) to {"vectors": float32 (B, D)}; moves the encoder.

    Args:
        backbone: Encoder and normalisation.
        wanted: Which vectors.
        device: Device on which the encoder computes.
        precision: Of matrix products; sums and pooling are in float32.

    Raises:
        UserError: If there is no such stage.
    """
    encoder = backbone.encoder
    tap = wanted.tap(encoder)
    encoder.to(device)

    def compute(pixels: Tensor) -> dict[str, Tensor]:
        images = normalize(pixels.to(device, non_blocking=True), backbone.mean, backbone.std)
        with autocast(device, precision):
            vectors = pooled(encoder, images, [tap])[tap]
        return {"vectors": F.normalize(vectors, dim=1) if wanted.normalize else vectors}

    return compute


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the context in which a network computes in a precision.

    Args:
        device: Where it computes.
        precision: Of its matrix products.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, precision))


def rows_of(
    dataset: ImageDataset,
    compute: Compute,
    view: View,
    *,
    size_px: tuple[int, int],
    batch_size: int,
    num_workers: int,
    first_batch: int = 0,
) -> Iterator[Rows]:
    """Compute something of every image, batch by batch, in the order of the data.

    Args:
        dataset: The images.
        compute: Maps pixels to values by name.
        view: What the network sees of an image.
        size_px: Height and width that the network takes.
        batch_size: Images at a time.
        num_workers: Loading processes; 0 loads in this one.
        first_batch: Number of the batch to begin with.
    """
    crop = CentreCrop(size_px, crop_ratio=view.crop_ratio)
    loader = InOrderLoader(
        dataset,
        LabeledTransform(crop, view.pixels, seed=0),
        collate_labeled,
        LoaderConfig(batch_size, num_workers, rank=0, world_size=1),
        first_batch=first_batch,
    )
    for read in loader:
        batch: LabeledBatch | None = read.batch
        if batch is None:
            yield Rows([], torch.empty(0, dtype=torch.int64), {}, read.bad_samples, read.num_images)
        else:
            values = compute(batch.pixels)
            yield Rows(list(batch.names), batch.labels, values, read.bad_samples, read.num_images)

"""Features of images as an array, from Python."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_swin.arguments import PathLike, Portion, Positive, checked
from ssl_swin.data.images.decode import decode_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sources.layout import Reading
from ssl_swin.data.sources.opening import open_data
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.errors import UserError
from ssl_swin.launch.build import usable_device
from ssl_swin.pixels import normalize
from ssl_swin.probing.features import Pooling, pool_map
from ssl_swin.weights.backbone import Backbone


class Embeddings(NamedTuple):
    """One vector per image."""

    names: list[str]  # N, of the images in their folder or archive
    vectors: Tensor  # float32 (N, C), on the CPU


@checked
def embed(
    backbone: Backbone,
    images: PathLike,
    *,
    stage: Positive | None = None,
    pooling: Pooling = "mean",
    crop_ratio: Portion = 0.875,
    batch_size: Positive = 64,
    device: torch.device | str = "cpu",
    pixels: PixelFormat | None = None,
) -> Embeddings:
    """Compute features of images, labelled or not, in the view of evaluation.

    Args:
        backbone: What `load_backbone` returned.
        images: Whatever `ssl-swin pack` takes: a folder of images, an archive, a table.
        stage: Stage of the encoder whose map is pooled, from 1; None takes the last.
        pooling: "mean" or "max" over the map.
        crop_ratio: Side of the centre crop over the shorter side of an image, in (0, 1].
        batch_size: Images that go through the encoder at a time.
        device: Device on which the encoder computes.
        pixels: What decoded images are; None takes the encoder's number of channels, of uint8.

    Returns:
        Names and vectors, split by split and in the order of the data.

    Raises:
        UserError: If there are no images, one cannot be read, or an argument is not possible.
    """
    encoder = backbone.encoder
    number = len(encoder.stage_dims) if stage is None else stage
    if not 1 <= number <= len(encoder.stage_dims):
        raise UserError(f"there is no stage {stage}: they are 1 to {len(encoder.stage_dims)}")
    training = encoder.training
    encoder.eval().to(usable_device(str(device)))
    names, vectors = [], []
    try:
        pixel_format = pixels or PixelFormat(encoder.in_chans, "uint8")
        views = _views(backbone, Path(images), pixel_format, crop_ratio)
        while batch := list(islice(views, batch_size)):
            batch_pixels = torch.stack([view for _, view in batch]).to(device)
            with torch.no_grad():
                maps = encoder.stages(normalize(batch_pixels, backbone.mean, backbone.std))
            vectors.append(pool_map(maps[number - 1].float(), pooling).cpu())
            names += [name for name, _ in batch]
    finally:
        encoder.train(training)
    return Embeddings(names, torch.cat(vectors))


def _views(
    backbone: Backbone, images: Path, pixel_format: PixelFormat, crop_ratio: float
) -> Iterator[tuple[str, Tensor]]:
    encoder = backbone.encoder
    crop = CentreCrop(encoder.img_size_px, crop_ratio=crop_ratio)
    unused = np.random.default_rng(0)
    for dataset in open_data(images, Reading(labelled=False), any_split=True).splits.values():
        for index in range(len(dataset)):
            encoded = dataset[index]
            pixels = decode_image(encoded.data, pixel_format, name=encoded.name)
            yield encoded.name, crop.on_pixels(pixels, unused)

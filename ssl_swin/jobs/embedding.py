"""Features of images as an array, from Python."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_swin.arguments import Name, PathLike, Portion, Positive, Workers, checked
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sources.layout import Reading
from ssl_swin.errors import UserError
from ssl_swin.inference.images import open_images
from ssl_swin.inference.parts import told_of
from ssl_swin.inference.vectors import Precision, View, Wanted, rows_of, vector_function
from ssl_swin.launch.build import usable_device
from ssl_swin.launch.data_settings import remote_cache
from ssl_swin.probing.features import Pooling
from ssl_swin.weights.backbone import Backbone


class Embeddings(NamedTuple):
    """One vector per image."""

    names: list[str]  # N, of the images in their folder, archive or shards
    vectors: Tensor  # float32 (N, C), on the CPU


@checked
def embed(
    backbone: Backbone,
    images: PathLike,
    *,
    stage: Positive | None = None,
    pooling: Pooling = "mean",
    normalize: bool = False,
    crop_ratio: Portion | None = None,
    batch_size: Positive = 64,
    num_workers: Workers = 0,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    pixels: PixelFormat | None = None,
    split: Name | None = None,
) -> Embeddings:
    """Compute features of images, labelled or not, in the view of evaluation.

    `ssl-swin embed` writes the same numbers to a file, and goes on after a kill.

    Args:
        backbone: What `load_backbone` returned.
        images: Whatever `ssl-swin pack` takes: a folder of images, an archive, a table, a list,
            shards; or a URL of shards.
        stage: Stage of the encoder whose map is pooled, from 1; None takes the last.
        pooling: "mean" or "max" over the map.
        normalize: Whether to scale each vector to length 1, so that products are cosines.
        crop_ratio: Side of the centre crop over the shorter side of an image, in (0, 1]; None takes
            the backbone's own.
        batch_size: Images that go through the encoder at a time.
        num_workers: Loading processes; 0 loads in this one.
        device: Device on which the encoder computes.
        precision: Of matrix products: "float32", "bfloat16" or "float16".
        pixels: What decoded images are; None takes the encoder's number of channels, of uint8.
        split: The only split to take; None takes all, and names each image SPLIT/NAME if there are
            several.

    Returns:
        Names and vectors, split by split and in the order of the data.

    Raises:
        UserError: If there are no images, one cannot be read, or an argument is not possible.
    """
    encoder = backbone.encoder
    place = usable_device(str(device))
    compute = vector_function(
        backbone, Wanted(stage, pooling, normalize), device=place, precision=precision
    )
    found = open_images(images, reading=Reading(labelled=False), split=split, cache=remote_cache())
    names, vectors = [], []
    for rows in rows_of(
        found.dataset,
        compute,
        View(pixels or PixelFormat(encoder.in_chans, "uint8"), crop_ratio or backbone.crop_ratio),
        size_px=encoder.img_size_px,
        batch_size=batch_size,
        num_workers=num_workers,
    ):
        if rows.bad_samples:
            raise UserError(told_of(rows.bad_samples[0]))
        names += rows.names
        vectors.append(rows.values["vectors"])
    return Embeddings(names, torch.cat(vectors))

"""Images of a set as they are shown in a figure, found by name near a row."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.decode import decode_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError
from ssl_swin.inference.vector_files import in_utf8
from ssl_swin.pixels import normalize
from ssl_swin.reporting.figures import as_rgb

SHOWN_PX = 280  # longer side of what is kept of an image


def picture(sample: EncodedSample, pixels: PixelFormat) -> NDArray[np.uint8]:
    """Return an image as it is shown: uint8 (H, W, 3), its first three bands, or its first.

    Args:
        sample: The image.
        pixels: How it is decoded.

    Raises:
        UserError: If it cannot be.
    """
    every = replace(pixels, channels=None if pixels.bands is None else len(pixels.bands))
    decoded = decode_image(sample.data, every, name=sample.name)
    step = max(1, max(decoded.shape[1:]) // SHOWN_PX)
    return as_picture(decoded[:, ::step, ::step])


def as_picture(pixels: Tensor) -> NDArray[np.uint8]:
    """Return decoded pixels as they are shown: uint8 (H, W, 3).

    Args:
        pixels: (C, H, W); the first three bands are shown, or the first. Of other than uint8, each
            band is stretched.
    """
    bands = pixels[:3] if len(pixels) >= 3 else pixels[:1]
    nothing, one = [0.0] * len(bands), [1.0] * len(bands)
    images = normalize(bands[None], nothing, one)
    shown: NDArray[np.uint8] = as_rgb(images, nothing, one, stretch=pixels.dtype != torch.uint8)[0]
    return shown


def sample_of_row(dataset: ImageDataset, row: int, name: str, num_rows: int) -> EncodedSample:
    """Return the sample that a row of a file of results is of.

    Rows are in the order of the data, and lack images that could not be read.

    Args:
        dataset: The images.
        row: Number of the row, from 0.
        name: What the file calls its image.
        num_rows: Rows of the file.

    Raises:
        UserError: If the data is other than that of the file.
    """
    for index in range(row, len(dataset) - num_rows + row + 1):
        try:
            sample = dataset[index]
        except Exception:  # one that could not be read has no row
            continue
        if in_utf8(sample.name) == name:
            return sample
    raise UserError(
        f"image {row + 1} of the vectors is {name}, and there is no such image among the images "
        "that are given: give those that the vectors are of, and the same --split"
    )

"""Pictures inside JSON, and what a masked pretraining makes of an image."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_swin.data.rng import keyed_generator
from ssl_swin.inference.vectors import Precision, autocast
from ssl_swin.masking import random_mask
from ssl_swin.objectives.masked_images import MaskedBatch
from ssl_swin.objectives.simmim import MaskedImageModel
from ssl_swin.pixels import normalize
from ssl_swin.reporting.figures import image_columns
from ssl_swin.serving.batching import Row
from ssl_swin.serving.questions import Question


def data_url(pixels: NDArray[np.uint8]) -> str:
    """Return an image (H, W, 3) as a page shows it without asking again."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def reconstruction_question(
    model: MaskedImageModel,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    precision: Precision,
) -> Question:
    """Return the question for what a masked pretraining paints where an image is masked.

    Every image gets the same mask, so that a batch changes nothing.

    Args:
        model: Encoder and head.
        mean: Normalisation, per channel.
        std: Normalisation, per channel.
        device: Where it computes.
        precision: Of its matrix products.
    """
    model.to(device).eval()
    generator = keyed_generator(0, 0, "served", "mask")
    mask = random_mask(model.mask_grid, model.mask_ratio, generator, batch_size=1).to(device)

    def compute(pixels: Tensor) -> dict[str, Tensor]:
        images = normalize(pixels.to(device), mean, std)
        labels = torch.zeros(len(pixels), dtype=torch.int64)
        masks = mask.expand(len(pixels), -1, -1)
        batch = MaskedBatch(pixels, masks, labels, [""] * len(pixels))
        with autocast(device, precision), torch.no_grad():
            figure = model.figure(batch, lambda _: images)
        drawn = image_columns(figure, mean, std, stretch=pixels.dtype != torch.uint8)
        return {title: torch.from_numpy(column) for title, column in drawn.items()}

    def answer(row: Row) -> dict[str, Any]:
        return {"pictures": {title: data_url(value.numpy()) for title, value in row.items()}}

    return Question("reconstruct", "what it paints where an image is masked", compute, answer)

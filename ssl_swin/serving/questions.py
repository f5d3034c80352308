"""What can be asked of an image: its classes, its vector."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.pixel_values import TooLarge
from ssl_swin.data.samples import LabeledTransform
from ssl_swin.data.transforms import CentreCrop
from ssl_swin.errors import UserError
from ssl_swin.inference.predictors.base import Options
from ssl_swin.inference.predictors.classification import ClassPredictor
from ssl_swin.inference.vector_files import in_utf8
from ssl_swin.inference.vectors import Compute, Precision, View, Wanted, vector_function
from ssl_swin.serving.batching import Row
from ssl_swin.serving.limits import Refusal
from ssl_swin.weights.backbone import Backbone


@dataclass(frozen=True)
class Question:
    """One kind of answer.

    Attributes:
        name: The path without its slash.
        told: In words, for the page.
        compute: Maps pixels (B, C, H, W) to values by name.
        answer: Makes what JSON holds of the values of one image.
    """

    name: str
    told: str
    compute: Compute
    answer: Callable[[Row], dict[str, Any]]


@dataclass(frozen=True)
class Served:
    """What is served.

    Attributes:
        title: What the network is, for a reader.
        view: What it sees of an image.
        size_px: Height and width that it takes.
        questions: By name.
    """

    title: str
    view: View
    size_px: tuple[int, int]
    questions: dict[str, Question]

    def decoder(self) -> Callable[[EncodedSample], torch.Tensor]:
        """Return what makes pixels (C, H, W) of an image file, and refuses it if it cannot."""
        crop = CentreCrop(self.size_px, crop_ratio=self.view.crop_ratio)
        transform = LabeledTransform(crop, self.view.pixels, seed=0)

        def decode(sample: EncodedSample) -> torch.Tensor:
            try:
                return transform(sample, 0).pixels
            except UserError as error:
                is_large = isinstance(error.__cause__, TooLarge)
                raise Refusal(413 if is_large else 422, _for_a_client(str(error))) from None

        return decode


def class_question(
    predictor: ClassPredictor, options: Options, device: torch.device, precision: Precision
) -> Question:
    """Return the question for the most probable classes, as `ssl-swin predict` answers it.

    Args:
        predictor: The classifier.
        options: Number of classes, and what scores are.
        device: Where it computes.
        precision: Of its matrix products.
    """
    scores = "logits" if options.scores == "logit" else "probabilities"

    def answer(row: Row) -> dict[str, Any]:
        pairs = zip(
            row["classes"][: options.top].tolist(),
            row[scores][: options.top].tolist(),
            strict=True,
        )
        return {
            "predictions": [
                {"class": in_utf8(predictor.classes[label]), "score": float(f"{score:.6g}")}
                for label, score in pairs
            ]
        }

    return Question(
        "predict",
        "the most probable classes of each image, with their scores",
        predictor.compute(options, device, precision),
        answer,
    )


def vector_question(
    backbone: Backbone, wanted: Wanted, device: torch.device, precision: Precision
) -> Question:
    """Return the question for the vector of an image, as `ssl-swin embed` answers it.

    Args:
        backbone: Encoder and normalisation.
        wanted: Which vectors.
        device: Where it computes.
        precision: Of its matrix products.

    Raises:
        UserError: If there is no such stage.
    """

    def answer(row: Row) -> dict[str, Any]:
        return {"vector": [float(f"{value:.9g}") for value in row["vectors"].tolist()]}

    return Question(
        "embed",
        "the vector of each image",
        vector_function(backbone, wanted, device=device, precision=precision),
        answer,
    )


def _for_a_client(message: str) -> str:
    """Return a message about an image without what its owner could do here."""
    return (
        message.partition(" (remove it")[0].partition(" (raise it")[0].partition("; set data.")[0]
    )

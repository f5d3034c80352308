"""The contract of a predictor, and the list of those there are."""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

import torch
from torch import nn

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError
from ssl_swin.inference.parts import Parts
from ssl_swin.inference.vectors import Compute, Precision
from ssl_swin.weights.backbone import CLASSIFICATION, CONFIG

# By the `task` of a folder's config.json; a folder without one is a classifier's, as timm has them.
PREDICTORS = {"classification": "ssl_swin.inference.predictors.classification"}


@dataclass(frozen=True)
class Options:
    """What is wanted of predictions.

    Attributes:
        top: Classes of each image.
        scores: Whether scores are probabilities or logits.
        figure: Where to draw an overview; None draws none.
    """

    top: int = 5
    scores: Literal["probability", "logit"] = "probability"
    figure: Path | None = None


class TakesImages(Protocol):
    """What is known of the images that a network takes; an `Encoder` knows it."""

    @property
    def in_chans(self) -> int:
        """Number of channels."""

    @property
    def img_size_px(self) -> tuple[int, int]:
        """Height and width."""


class Predictor(ABC):
    """A network with its head, and how its answers are written.

    A module of this package has one, under the name `PREDICTOR`.

    Attributes:
        endings: Of the files that it writes.
        model: Encoder and head, in eval mode; empty where a file holds them.
        encoder: What says which images it takes.
        classes: Names by label.
        mean: Normalisation, per channel.
        std: Normalisation, per channel.
        crop_ratio: Of the centre crop that the network was evaluated on.
        notes: Lines on what was found when it was loaded.
        only_device: Where it computes, if it cannot choose.
    """

    endings: ClassVar[tuple[str, ...]]
    model: nn.Module
    encoder: TakesImages
    classes: tuple[str, ...]
    mean: Sequence[float]
    std: Sequence[float]
    crop_ratio: float
    notes: Sequence[str] = ()
    only_device: ClassVar[str | None] = None

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Load the network of a folder, or of a file that was exported.

        Raises:
            UserError: If it holds another.
        """

    @abstractmethod
    def facts(self, options: Options) -> dict[str, object]:
        """Return what results depend on besides weights, images and view, as JSON takes it."""

    @abstractmethod
    def compute(self, options: Options, device: torch.device, precision: Precision) -> Compute:
        """Return what maps pixels (B, C, H, W) to values by name; moves the network."""

    @abstractmethod
    def write(
        self, parts: Parts, dataset: ImageDataset, pixels: PixelFormat, options: Options
    ) -> int:
        """Write the file, and the figure if one is wanted; return the number of images in it."""

    @abstractmethod
    def told(self) -> list[str]:
        """Return lines on what was written last, as its accuracy where there are labels."""


def load_predictor(folder: Path) -> Predictor:
    """Load the network of a folder by the kind of its task.

    Args:
        folder: Holds config.json and model.safetensors.

    Raises:
        UserError: If the kind is not known, or the folder holds none.
    """
    kind = str(json.loads((folder / CONFIG).read_text()).get("task", CLASSIFICATION))
    if kind not in PREDICTORS:
        raise UserError(
            f"{folder} is for {kind}, which predict does not know: it knows {', '.join(PREDICTORS)}"
        )
    predictor: type[Predictor] = importlib.import_module(PREDICTORS[kind]).PREDICTOR
    return predictor.load(folder)

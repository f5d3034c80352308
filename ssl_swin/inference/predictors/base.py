"""The contract of a predictor, and the list of those there are."""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Protocol, Self

from torch import nn

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError
from ssl_swin.inference.parts import Parts
from ssl_swin.inference.run import Computing
from ssl_swin.inference.vectors import Rows
from ssl_swin.weights.backbone import CLASSIFICATION, CONFIG, NOT_TOLD

NOT_READ = (OSError, *NOT_TOLD)

# By the `task` of a folder's config.json; a folder without one is a classifier's, as timm has them.
PREDICTORS = {
    "classification": "ssl_swin.inference.predictors.classification",
    "segmentation": "ssl_swin.inference.predictors.segmentation",
    "detection": "ssl_swin.inference.predictors.detection",
}


@dataclass(frozen=True)
class Options:
    """What is wanted of predictions.

    Attributes:
        top: Classes of each image.
        scores: Whether scores are probabilities or logits.
        figure: Where to draw an overview; None draws none.
        overlays: Whether each image is written with its answer over it.
    """

    top: int = 5
    scores: Literal["probability", "logit"] = "probability"
    figure: Path | None = None
    overlays: bool = False


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
        title: What it is, for a reader.
        options: What may be chosen: fields of `Options`, "crop_ratio" and "batch_size".
        batch_size: Images at a time where that is not chosen.
        part_images: About as many are done anew after a kill; None is as of a table of classes.
        writes_folder: Whether it writes a folder, and no file.
        looks_at_members: Whether the truth lies in a member of a sample, and is no class of it.
        looks_at_boxes: Whether it is boxes.
        model: Encoder and head, in eval mode; empty where a file holds them.
        encoder: What says which images it takes.
        classes: Names by label.
        mean: Normalisation, per channel.
        std: Normalisation, per channel.
        crop_ratio: Of the centre crop that the network was evaluated on.
        notes: Lines on what was found when it was loaded.
        only_device: Where it computes, if it cannot choose.
    """

    title: ClassVar[str]
    options: ClassVar[frozenset[str]]
    batch_size: ClassVar[int] = 64
    part_images: ClassVar[int | None] = None
    writes_folder: ClassVar[bool] = False
    looks_at_members: ClassVar[bool] = False
    looks_at_boxes: ClassVar[bool] = False
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
    def check_out(self, out: Path) -> None:
        """Refuse a name for the result that it cannot have.

        Raises:
            UserError: If it cannot, or what writes it is not installed.
        """

    @abstractmethod
    def rows(
        self,
        dataset: ImageDataset,
        computing: Computing,
        options: Options,
        parts: Parts,
        first_batch: int,
    ) -> Iterator[Rows]:
        """Compute something of every image, batch by batch in their order; moves the network.

        Args:
            dataset: The images.
            computing: How they go through the network.
            options: What is wanted.
            parts: Where files of single images are written, into their draft.
            first_batch: Number of the batch to begin with; what is before it is done.
        """

    @abstractmethod
    def write(
        self, parts: Parts, dataset: ImageDataset, pixels: PixelFormat, options: Options
    ) -> int:
        """Write the result, and the figure if one is wanted; return the number of its images."""

    @abstractmethod
    def list_of_bad(self, out: Path) -> Path:
        """Return where images that could not be read are listed."""

    @abstractmethod
    def told(self) -> list[str]:
        """Return lines on what was written last, as its accuracy where there are labels."""


def check_options(
    predictor: Predictor, given: Collection[str], spelled: Callable[[str], str] = str
) -> None:
    """Refuse options that would be without effect.

    Args:
        predictor: Says which it has.
        given: Names of those that were given.
        spelled: Returns a name as the user wrote it.

    Raises:
        UserError: Naming one.
    """
    for name in given:
        if name not in predictor.options:
            raise UserError(f"{spelled(name)} is not for {predictor.title}: leave it out")


def task_folder(place: Path) -> Path | None:
    """Return the folder of another task than classification that a path names.

    Args:
        place: That folder, or a run's with it inside.

    Returns:
        None where there is none.
    """
    folders = [place, *sorted(path.parent for path in place.glob(f"*/{CONFIG}"))]
    return next((folder for folder in folders if _task(folder) not in (None, CLASSIFICATION)), None)


def load_predictor(folder: Path) -> Predictor:
    """Load the network of a folder by the kind of its task.

    Args:
        folder: Holds config.json and model.safetensors.

    Raises:
        UserError: If the kind is not known, or the folder holds none.
    """
    kind = _task(folder) or CLASSIFICATION
    if kind not in PREDICTORS:
        raise UserError(
            f"{folder} is for {kind}, which predict does not know: it knows {', '.join(PREDICTORS)}"
        )
    predictor: type[Predictor] = importlib.import_module(PREDICTORS[kind]).PREDICTOR
    return predictor.load(folder)


def _task(folder: Path) -> str | None:
    """Return what a folder's configuration says it is for; None where it says nothing."""
    try:
        task = json.loads((folder / CONFIG).read_text()).get("task")
    except NOT_READ:
        return None
    return None if task is None else str(task)

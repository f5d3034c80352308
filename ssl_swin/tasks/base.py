"""The contract of a task: what is learned from labels, on a pretrained encoder.

A task is an objective that knows classes, chooses the best epoch by a metric, and is handed on with
its head. A new task is one module with a subclass and one YAML file that names it.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Objective


class Export(NamedTuple):
    """A network with its head, as timm builds and names it, or as `Task.loading` says."""

    state: dict[str, Tensor]  # by timm's names, where timm loads it
    settings: dict[str, Any]  # added to the model's config.json
    num_classes: int


class Task(Objective):
    """A head on an encoder, its loss, and what it is measured by.

    Attributes:
        classes: Names of the classes, by label.
        monitor: Metric of `new_metrics` that chooses the best epoch, the higher the better.
        result_title: Name of that metric for a reader.
        needs_labels: Whether every image must have a class label.
        folder: Folder inside the run's folder into which the model is exported.
        job: Module of `ssl_swin.jobs` that trains it, by its `task_and_data`.
    """

    monitor: ClassVar[str]
    result_title: ClassVar[str]
    needs_labels: ClassVar[bool] = True
    folder: ClassVar[str] = "task"
    job: ClassVar[str] = "finetune"
    classes: tuple[str, ...]

    def __init__(self, encoder: Encoder, classes: Sequence[str]) -> None:
        """Wrap an encoder.

        Args:
            encoder: Pretrained, or with random weights.
            classes: Names of the classes, by label.
        """
        super().__init__(encoder.for_finetuning())
        self.classes = tuple(classes)

    def resized(self, img_size_px: int | Sequence[int]) -> Self:
        """Return the task for another image size, with the weights that this one has now.

        Args:
            img_size_px: Side of the square image, or (height, width).

        Raises:
            UserError: If the encoder cannot take the size, or images have any.
        """
        raise UserError(f"{self.title} takes images of any size, got {img_size_px}")

    def loading(self) -> str:
        """Return the lines of Python that load what `export` returns; none where timm does.

        They name the folder as "PATH/TO/THIS/FOLDER".
        """
        return ""

    @abstractmethod
    def export(self) -> Export:
        """Return what is handed on: the encoder's weights with the head's."""

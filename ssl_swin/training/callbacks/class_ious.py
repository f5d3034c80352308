"""How well the pixels of each class are told, of the split that the result is measured on."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_swin.objectives.base import Objective
from ssl_swin.tasks.pixel_metrics import MeanIoU
from ssl_swin.tasks.segmentation import Segmentation
from ssl_swin.training.all_ranks import done_by_all
from ssl_swin.training.callbacks.class_table import ClassTable, Rows

HEADER = ("class", "pixels", "told", "accuracy_percent", "iou_percent")


class ClassIous(ClassTable):
    """Leaves `confusion_SPLIT/per_class.csv` of a validation or a test."""

    folder = "confusion"

    def table(self, task: Objective, metrics: nn.ModuleDict) -> tuple[Sequence[str], Rows]:
        """See `ClassTable.table`."""
        assert isinstance(task, Segmentation)
        metric = metrics["miou"]
        assert isinstance(metric, MeanIoU)
        own = torch.stack([metric.true, metric.predicted, metric.both]).cpu()
        counts = torch.stack(done_by_all(lambda: own)).sum(dim=0)
        return HEADER, class_rows(task.classes, *counts)


def class_rows(
    classes: Sequence[str], true: Tensor, predicted: Tensor, both: Tensor
) -> list[tuple[object, ...]]:
    """Return the rows of the table, one per class; nothing stands where there is no number.

    Args:
        classes: Names by label.
        true: Pixels of each class, int64 (classes,).
        predicted: Pixels told to be of it.
        both: Pixels rightly told to be of it.
    """
    union = true + predicted - both
    return [
        (
            name,
            int(true[at]),
            int(predicted[at]),
            *(_percent(both[at], of[at]) for of in (true, union)),
        )
        for at, name in enumerate(classes)
    ]


def _percent(part: Tensor, of: Tensor) -> str:
    return f"{100 * int(part) / int(of):.2f}" if of else ""

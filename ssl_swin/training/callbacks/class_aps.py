"""How well the objects of each class are detected, of the split that the result is measured on."""

import math
from collections.abc import Sequence

from torch import nn

from ssl_swin.objectives.base import Objective
from ssl_swin.tasks.box_metrics import CocoEvaluation, CocoNumber
from ssl_swin.tasks.detection import Detection
from ssl_swin.training.all_ranks import done_by_all
from ssl_swin.training.callbacks.class_table import ClassTable, Rows

HEADER = ("class", "objects", "ap_percent")
HEADER_OF_MASKS = (*HEADER, "mask_ap_percent")


class ClassAps(ClassTable):
    """Leaves `detections_SPLIT/per_class.csv` of a validation or a test."""

    folder = "detections"

    def table(self, task: Objective, metrics: nn.ModuleDict) -> tuple[Sequence[str], Rows]:
        """See `ClassTable.table`."""
        assert isinstance(task, Detection)
        metric = metrics[task.monitor]
        assert isinstance(metric, CocoNumber)
        found = metric.evaluation
        (rows, *_) = done_by_all(lambda: class_rows(task.classes, found))
        return (HEADER_OF_MASKS if found.with_masks else HEADER), rows


def class_rows(classes: tuple[str, ...], found: CocoEvaluation) -> list[tuple[object, ...]]:
    """Return the rows of the table, one per class; nothing stands where there is no number.

    Args:
        classes: Names by label.
        found: What was counted; of several devices, all of them ask.
    """
    columns = [[_percent(value) for value in found.of_classes()]]
    if found.with_masks:
        columns.append([_percent(value) for value in found.of_classes(of_masks=True)])
    return list(zip(classes, found.num_objects(), *columns, strict=True))


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.2f}"

"""How well the objects of each class are detected, of the split that the result is measured on."""

import math
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from ssl_swin.files import make_folder, write_atomically
from ssl_swin.reporting.confusion import table_of
from ssl_swin.tasks.box_metrics import CocoEvaluation, CocoNumber
from ssl_swin.tasks.detection import Detection
from ssl_swin.training.all_ranks import done_by_all
from ssl_swin.training.extras import Extra
from ssl_swin.training.module import TrainingModule

HEADER = ("class", "objects", "ap_percent")
HEADER_OF_MASKS = (*HEADER, "mask_ap_percent")


class ClassAps(Extra):
    """Leaves `detections_SPLIT/per_class.csv` of a validation or a test."""

    title = "the table of classes"

    def __init__(self, run_folder: str | Path) -> None:
        """Set the callback up.

        Args:
            run_folder: Gets the folder.
        """
        self.run_folder = Path(run_folder)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        self._write(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, module: LightningModule, split: str) -> None:
        assert isinstance(module, TrainingModule) and isinstance(module.model, Detection)
        metrics = module.val_metrics if split == "val" else module.test_metrics
        metric = metrics[module.model.monitor]
        assert isinstance(metric, CocoNumber)
        classes, found = module.model.classes, metric.evaluation
        (rows, *_) = done_by_all(lambda: class_rows(classes, found))
        if trainer.is_global_zero and any(row[1] for row in rows):
            folder = make_folder(self.run_folder / f"detections_{split}")
            header = HEADER_OF_MASKS if found.with_masks else HEADER
            write_atomically(folder / "per_class.csv", table_of(header, rows))


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

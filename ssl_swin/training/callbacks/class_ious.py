"""How well the pixels of each class are told, of the split that the result is measured on."""

from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ssl_swin.files import make_folder, write_atomically
from ssl_swin.reporting.confusion import table_of
from ssl_swin.tasks.pixel_metrics import MeanIoU
from ssl_swin.tasks.segmentation import Segmentation
from ssl_swin.training.all_ranks import done_by_all
from ssl_swin.training.extras import Extra
from ssl_swin.training.module import TrainingModule

HEADER = ("class", "pixels", "told", "accuracy_percent", "iou_percent")


class ClassIous(Extra):
    """Leaves `confusion_SPLIT/per_class.csv` of a validation or a test."""

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
        assert isinstance(module, TrainingModule) and isinstance(module.model, Segmentation)
        metric = (module.val_metrics if split == "val" else module.test_metrics)["miou"]
        assert isinstance(metric, MeanIoU)
        own = torch.stack([metric.true, metric.predicted, metric.both]).cpu()
        counts = torch.stack(done_by_all(lambda: own)).sum(dim=0)
        if trainer.is_global_zero and counts.any():
            folder = make_folder(self.run_folder / f"confusion_{split}")
            rows = class_rows(module.model.classes, *counts)
            write_atomically(folder / "per_class.csv", table_of(HEADER, rows))


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

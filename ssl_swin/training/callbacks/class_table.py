"""A table of how well each class is told, of the split that the result is measured on."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from ssl_swin.files import make_folder, write_atomically
from ssl_swin.objectives.base import Objective
from ssl_swin.reporting.confusion import table_of
from ssl_swin.training.extras import Extra
from ssl_swin.training.module import TrainingModule

Rows = list[tuple[object, ...]]


class ClassTable(Extra):
    """Leaves `FOLDER_SPLIT/per_class.csv` of a validation or a test."""

    title = "the table of classes"
    folder: ClassVar[str]

    def __init__(self, run_folder: str | Path) -> None:
        """Set the callback up.

        Args:
            run_folder: Gets the folder.
        """
        self.run_folder = Path(run_folder)

    @abstractmethod
    def table(self, task: Objective, metrics: nn.ModuleDict) -> tuple[Sequence[str], Rows]:
        """Return the header and the rows, one per class: its name, how often it is there, and more.

        Args:
            task: The task that is measured.
            metrics: Its metrics after a split; of several devices, all of them ask.
        """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        self._write(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        self._write(trainer, pl_module, "test")

    def _write(self, trainer: Trainer, module: LightningModule, split: str) -> None:
        assert isinstance(module, TrainingModule)
        metrics = module.val_metrics if split == "val" else module.test_metrics
        header, rows = self.table(module.model, metrics)
        if trainer.is_global_zero and any(row[1] for row in rows):
            folder = make_folder(self.run_folder / f"{self.folder}_{split}")
            write_atomically(folder / "per_class.csv", table_of(header, rows))

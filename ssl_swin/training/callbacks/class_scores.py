"""The scores of a validation, kept for what is fitted to them afterwards."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ssl_swin.data.batch import LabeledBatch
from ssl_swin.tasks.classification import Classification
from ssl_swin.training.all_ranks import done_by_all
from ssl_swin.training.extras import Extra
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.peers import is_lost_peer

MOST_BYTES = 2**30  # of all processes; 50,000 images have as much with 5,000 classes


class ClassScores(Extra):
    """Keeps the logits of a classifier, and the labels, of the last validation.

    Attributes:
        logits: float32 (N, classes), in the order of the processes; None before a validation, and
            where they take more than a gibibyte.
        labels: int64 (N,).
    """

    title = "the calibration"

    def __init__(self) -> None:
        """Begin with nothing."""
        self.logits: Tensor | None = None
        self.labels: Tensor | None = None
        self._own: list[tuple[Tensor, Tensor]] = []
        self._failure: Exception | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier validation."""
        self.logits = self.labels = None
        self._own, self._failure = [], None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: LabeledBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the images of a batch."""
        if self._failure is None:
            try:
                self._take(trainer, pl_module, batch)
            except Exception as error:
                if is_lost_peer(error):
                    raise
                self._failure = error  # told when all processes can hear it

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put together what all processes have scored."""
        everybodys = [each for share in done_by_all(self._handed) for each in share]
        self._own = []
        if everybodys and sum(_num_bytes(logits) for logits, _ in everybodys) <= MOST_BYTES:
            self.logits = torch.cat([logits for logits, _ in everybodys])
            self.labels = torch.cat([labels for _, labels in everybodys])

    def _take(self, trainer: Trainer, module: LightningModule, batch: LabeledBatch) -> None:
        assert isinstance(module, TrainingModule) and isinstance(module.model, Classification)
        if sum(_num_bytes(logits) for logits, _ in self._own) > MOST_BYTES:
            return
        images = module.normalized(batch.pixels)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            logits = module.model.predict(images)
        self._own.append((logits.float().cpu(), batch.labels.cpu()))

    def _handed(self) -> list[tuple[Tensor, Tensor]]:
        if self._failure is not None:
            raise self._failure
        return self._own


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()

"""Masked image modelling as a Lightning module."""

from typing import Any

from torch import Tensor
from torchmetrics import MeanMetric

from ssl_swin.data.batch import PretrainBatch
from ssl_swin.objectives.simmim import MaskedImageModel, SimMIMOutput
from ssl_swin.training.module import TrainingModule


class PretrainModule(TrainingModule):
    """Trains a model on batches of raw pixels and masks."""

    model: MaskedImageModel

    def __init__(self, model: MaskedImageModel, **training: Any) -> None:
        """Puts the pieces together; see `TrainingModule`."""
        super().__init__(model, **training)
        self.val_loss = MeanMetric()  # exact over devices that share the images unevenly
        self.val_loss_vs_mean = MeanMetric()

    def forward(self, batch: PretrainBatch) -> SimMIMOutput:
        """Normalises on the device and reconstructs."""
        packing = () if batch.packing is None else (batch.packing,)
        output: SimMIMOutput = self.model(self.normalized(batch.pixels), batch.mask, *packing)
        return output

    def training_step(self, batch: PretrainBatch, batch_idx: int) -> Tensor:
        """One batch; Lightning accumulates, steps and clips."""
        output = self.forward(batch)
        self.log("train/loss", output.loss, prog_bar=True, batch_size=len(batch.pixels))
        return output.loss

    def validation_step(self, batch: PretrainBatch, batch_idx: int) -> None:
        """Loss on held-out images, always under the same masks.

        `val/loss_vs_mean` is the share of the error of always painting the set's mean colour.
        """
        output = self.forward(batch)
        guess = self.model.mean_guess_loss(self.normalized(batch.pixels), batch.mask)
        self.val_loss(output.loss, weight=len(batch.pixels))
        self.val_loss_vs_mean(output.loss / guess, weight=len(batch.pixels))
        metrics = {"val/loss": self.val_loss, "val/loss_vs_mean": self.val_loss_vs_mean}
        self.log_dict(metrics, prog_bar=True, on_step=False, on_epoch=True)

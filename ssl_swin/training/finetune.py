"""Fine-tuning a classifier as a Lightning module."""

from typing import Any

import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from ssl_swin.data.batch import LabeledBatch
from ssl_swin.errors import UserError
from ssl_swin.tasks.classification import Classifier
from ssl_swin.training.module import TrainingModule

make_mixup: Any = Mixup  # timm publishes no types for these two
make_erasing: Any = RandomErasing


class FinetuneModule(TrainingModule):
    """Trains a classifier end to end with the Swin recipe's mixing, erasing and smoothing."""

    model: Classifier

    def __init__(
        self,
        model: Classifier,
        *,
        mixup_alpha: float,
        cutmix_alpha: float,
        label_smoothing: float,
        erasing_probability: float,
        suffix: str = "",
        **training: Any,
    ) -> None:
        """Puts the pieces together.

        Args:
            model: What to train.
            mixup_alpha: Beta parameter of mixup; 0 turns it off.
            cutmix_alpha: Beta parameter of cutmix; 0 turns it off. With both, each batch draws one.
            label_smoothing: Mass spread over all classes, in [0, 1).
            erasing_probability: Of erasing one box of an image, filled with noise.
            suffix: What to append to the names of evaluation metrics.
            **training: Optimiser, schedule and normalisation, see `TrainingModule`.
        """
        super().__init__(model, **training)
        self.label_smoothing = label_smoothing
        num_classes = model.head.out_features
        self.mixup: Any = None
        if mixup_alpha > 0 or cutmix_alpha > 0:
            self.mixup = make_mixup(
                mixup_alpha, cutmix_alpha, label_smoothing=label_smoothing, num_classes=num_classes
            )
        self.erasing = make_erasing(erasing_probability, mode="pixel", device="cpu")
        # Sums and counts over all devices; `log(..., sync_dist=True)` would round the mean count of
        # images per device down, and so give too large a loss where they share unevenly.
        self.val_loss = MeanMetric()
        self.val_top1 = MulticlassAccuracy(num_classes, average="micro")
        self.test_top1 = MulticlassAccuracy(num_classes, average="micro")
        self.suffix = suffix

    def forward(self, pixels: Tensor) -> Tensor:
        """Class scores (B, num_classes) of raw pixels (B, C, H, W)."""
        scores: Tensor = self.model(self.normalized(pixels))
        return scores

    def training_step(self, batch: LabeledBatch, batch_idx: int) -> Tensor:
        """Erases, mixes, classifies."""
        images = self.normalized(batch.pixels)
        self.erasing.device = images.device
        images = self.erasing(images)
        if self.mixup is None:
            scores = self.model(images)
            loss = F.cross_entropy(scores, batch.labels, label_smoothing=self.label_smoothing)
        else:
            images, soft_labels = self.mixup(images, batch.labels)
            loss = F.cross_entropy(self.model(images), soft_labels)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: LabeledBatch, batch_idx: int) -> None:
        """Loss and top-1 accuracy, exact over uneven devices."""
        scores = self(batch.pixels)
        self.val_loss(F.cross_entropy(scores, batch.labels), weight=len(scores))
        self.val_top1(scores, batch.labels)
        self._log_epoch("val/loss", self.val_loss)
        self._log_epoch("val/top1", self.val_top1, prog_bar=True)

    def test_step(self, batch: LabeledBatch, batch_idx: int) -> None:
        """Top-1 accuracy, exact over uneven devices."""
        self.test_top1(self(batch.pixels), batch.labels)
        self._log_epoch("test/top1", self.test_top1)

    def _log_epoch(self, name: str, metric: Metric, prog_bar: bool = False) -> None:
        self.log(name + self.suffix, metric, prog_bar=prog_bar, on_step=False, on_epoch=True)

    def on_fit_start(self) -> None:
        """Refuses batches that mixing cannot pair.

        Raises:
            UserError: If mixing is on and the batch size is odd.
        """
        batch_size = self.trainer.datamodule.batch_size  # type: ignore[attr-defined]
        if self.mixup is not None and batch_size % 2:
            raise UserError(f"mixup and cutmix pair images: batch_size {batch_size} must be even")

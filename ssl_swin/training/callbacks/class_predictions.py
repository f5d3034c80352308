"""What a classifier takes for what, of the images that its result is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ssl_swin.data.batch import LabeledBatch
from ssl_swin.files import atomic_path
from ssl_swin.reporting.confusion import confusion_matrix, save_confusion
from ssl_swin.reporting.figures import Bands, shown_bands
from ssl_swin.reporting.mistakes_figure import Mistake, draw_mistakes, surest
from ssl_swin.reporting.tiles import TILE_PX
from ssl_swin.tasks.classification import Classification
from ssl_swin.training.all_ranks import done_by_all
from ssl_swin.training.extras import Extra
from ssl_swin.training.module import TrainingModule
from ssl_swin.training.peers import is_lost_peer

NUM_MISTAKES = 24
MOST_CLASSES = 5000  # of a matrix: 200 MB


@dataclass
class _Share:
    """What one process has seen."""

    labels: list[Tensor] = field(default_factory=list)
    predicted: list[Tensor] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)


class ClassPredictions(Extra):
    """Leaves `confusion_SPLIT/` of a validation or a test: matrix, accuracies, surest mistakes.

    Each process judges its own images in the same pass; the first one draws those of all.
    """

    title = "the confusion matrix"

    def __init__(self, run_folder: str | Path, *, bands: Bands = None) -> None:
        """Set the callback up.

        Args:
            run_folder: Gets the folder.
            bands: Channels drawn as red, green and blue; see `shown_bands`.
        """
        self.run_folder = Path(run_folder)
        self.bands = bands
        self._own = _Share()
        self._is_8_bit = True
        self._failure: Exception | None = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Judge the images of a batch."""
        self._take(trainer, pl_module, batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder."""
        self._write(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder."""
        self._write(trainer, pl_module, "test")

    def _take(self, trainer: Trainer, module: LightningModule, batch: LabeledBatch) -> None:
        assert isinstance(module, TrainingModule) and isinstance(module.model, Classification)
        if self._failure is not None:
            return
        try:
            images = module.normalized(batch.pixels)
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                scores = module.model.predict(images)
            self._is_8_bit = batch.pixels.dtype == torch.uint8
            self._add(batch, images, scores)
        except Exception as error:
            if is_lost_peer(error):
                raise
            self._failure = error  # told when all processes can hear it

    def _add(self, batch: LabeledBatch, images: Tensor, scores: Tensor) -> None:
        confidence, predicted = scores.float().softmax(dim=1).max(dim=1)
        labels, own = batch.labels.to(predicted.device), self._own
        own.labels.append(labels.cpu())
        own.predicted.append(predicted.cpu())
        wrong = torch.where(predicted != labels, confidence, -1.0)
        bands = shown_bands(self.bands, images.shape[1])
        for at in wrong.topk(min(NUM_MISTAKES, len(wrong))).indices.tolist():
            if wrong[at] >= 0:
                about = (wrong[at].item(), batch.names[at], int(labels[at]), int(predicted[at]))
                own.mistakes.append(Mistake(*about, _thumbnail(images[at, bands])))
        own.mistakes = surest(own.mistakes, NUM_MISTAKES)

    def _write(self, trainer: Trainer, module: LightningModule, split: str) -> None:
        own, failure = self._own, self._failure
        self._own, self._failure = _Share(), None

        def handed() -> _Share:
            if failure is not None:
                raise failure
            return own

        shares = done_by_all(handed)
        if trainer.is_global_zero and any(share.labels for share in shares):
            assert isinstance(module, TrainingModule)
            assert isinstance(module.model, Classification)
            self._save(module, module.model.classes, shares, self.run_folder / f"confusion_{split}")

    def _save(
        self,
        module: TrainingModule,
        classes: Sequence[str],
        shares: Sequence[_Share],
        folder: Path,
    ) -> None:
        predicted = torch.cat([part for share in shares for part in share.predicted])
        labels = torch.cat([part for share in shares for part in share.labels])
        if len(classes) <= MOST_CLASSES:
            save_confusion(folder, confusion_matrix(predicted, labels, len(classes)), classes)
        picture = folder / "mistakes.png"
        mistakes = surest([each for share in shares for each in share.mistakes], NUM_MISTAKES)
        if not mistakes:
            picture.unlink(missing_ok=True)  # of an earlier measurement
            return
        bands = shown_bands(self.bands, len(module.mean))
        mean, std = ([values[band] for band in bands] for values in (module.mean, module.std))
        drawn = draw_mistakes(mistakes, classes, mean, std, stretch=not self._is_8_bit)
        with atomic_path(picture) as temporary:
            drawn.save(temporary, format="png")


def _thumbnail(image: Tensor) -> Tensor:
    """Return an image (bands, H, W) on the CPU, no larger than it is drawn."""
    height_px, width_px = image.shape[-2:]
    ratio = TILE_PX / max(height_px, width_px)
    small = image[None].float()
    if ratio < 1:
        size_px = (max(1, round(height_px * ratio)), max(1, round(width_px * ratio)))
        small = F.interpolate(small, size=size_px, mode="area")
    return small[0].cpu()

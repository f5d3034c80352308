"""A classifier of this package as a predictor."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.inference.calibration import load_calibration
from ssl_swin.inference.predictors.class_answers import ClassAnswers, Logits
from ssl_swin.inference.vectors import Precision, autocast
from ssl_swin.pixels import normalize
from ssl_swin.plurals import counted
from ssl_swin.probing.feature_store import weights_fingerprint
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import SWIN_CROP_RATIO, load_backbone
from ssl_swin.weights.formats.head_classes import published_rows
from ssl_swin.weights.kept_head import KeptHead, read_head


class ClassPredictor(ClassAnswers):
    """A classifier, its class names, and the temperature that was fitted for it."""

    encoder: Encoder

    def __init__(
        self,
        model: Classifier,
        classes: Sequence[str],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        crop_ratio: float = SWIN_CROP_RATIO,
        temperature: float = 1.0,
    ) -> None:
        """Wrap a classifier.

        Args:
            model: Encoder and head.
            classes: Names by label.
            mean: Normalisation, per channel.
            std: Normalisation, per channel.
            crop_ratio: Of the centre crop that it was evaluated on.
            temperature: Logits are divided by it for probabilities.
        """
        super().__init__()
        self.model = model.eval()
        self.encoder = model.encoder
        self.classes = tuple(classes)
        self.mean, self.std, self.crop_ratio = mean, std, crop_ratio
        self.temperature = temperature
        self.notes: list[str] = []

    @classmethod
    def load(cls, folder: Path) -> "ClassPredictor":
        """See `Predictor.load`."""
        backbone, head = load_backbone(folder), read_head(folder)
        if head is None:
            raise UserError(
                f"{folder} is a backbone without a classification head: give the run of a "
                "fine-tuning, or its folder classifier/"
            )
        model = Classifier(backbone.encoder, num_classes=len(head.bias))
        if model.head.weight.shape != head.weight.shape:
            raise UserError(f"{folder} has a head for other features than its encoder's")
        with torch.no_grad():
            model.head.weight.copy_(head.weight)
            model.head.bias.copy_(head.bias)
        found = cls(
            model,
            _names(head),
            mean=backbone.mean,
            std=backbone.std,
            crop_ratio=backbone.crop_ratio,
        )
        found._take_calibration(folder)
        return found

    def logits_function(self, device: torch.device, precision: Precision) -> Logits:
        """See `ClassAnswers.logits_function`; moves the network."""
        self.model.to(device)

        def logits_of(pixels: Tensor) -> Tensor:
            images = normalize(pixels.to(device, non_blocking=True), self.mean, self.std)
            with autocast(device, precision), torch.no_grad():
                logits: Tensor = self.model(images)
            return logits.float().cpu()

        return logits_of

    def _take_calibration(self, folder: Path) -> None:
        found = load_calibration(folder)
        if found is None:
            return
        if found.weights != weights_fingerprint(self.model):
            self.notes.append("the calibration beside the classifier is of other weights: unused")
            return
        self.temperature = found.temperature
        self.notes.append(
            f"probabilities are calibrated on {counted(found.num_images, 'image')}: temperature "
            f"{found.temperature:.3f}"
        )


PREDICTOR = ClassPredictor


def _names(head: KeptHead) -> list[str]:
    """Return the names of a head's classes; those of ImageNet by its order are synsets."""
    number = len(head.bias)
    if head.names and head.names != tuple(map(str, range(number))):
        return list(head.names)
    if published := published_rows(number):
        named = {row: name for name, row in published[0][0].items()}
        return [named[row] for row in range(number)]
    return list(map(str, range(number)))

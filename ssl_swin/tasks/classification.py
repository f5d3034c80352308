"""Classification: a head on an encoder, fine-tuned end to end with the Swin recipe."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from ssl_swin.arguments import Fraction, NonNegative, RateBelow1, checked
from ssl_swin.data.batch import LabeledBatch, collate_labeled
from ssl_swin.data.samples import Augmentation, LabeledTransform, PixelFormat
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.errors import UserError
from ssl_swin.figure import Figure, ImageColumn
from ssl_swin.objectives.base import Collate, Normalize, Output
from ssl_swin.plurals import counted
from ssl_swin.tasks.base import Export, Task

make_mixup: Any = Mixup  # timm publishes no types for these two
make_erasing: Any = RandomErasing


class Classifier(nn.Module):
    """Mean over the last map's tokens, for a ViT then a norm, and one linear layer.

    `encoder` is what `for_finetuning` makes of the given one: of a pretrained ViT another module.
    """

    def __init__(self, encoder: Encoder, *, num_classes: int) -> None:
        """Put a fresh head on the encoder: bias 0, weights N(0, 0.02^2), for a ViT a thousandth.

        Args:
            encoder: Pretrained, or with random weights.
            num_classes: Number of scores.
        """
        super().__init__()
        self.encoder = encoder.for_finetuning()
        self.head = _fresh_head(encoder, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores (B, num_classes) of normalised images (B, C, H, W)."""
        return _scores(self, images)


class Classification(Task):
    """Fine-tuning of a `Classifier` with mixing, erasing and smoothing."""

    title = "classification"
    tags = ("image-classification",)
    monitor = "top1"
    folder = "classifier"
    result_title = "top-1"

    @checked
    def __init__(
        self,
        encoder: Encoder,
        classes: Sequence[str],
        *,
        mixup_alpha: NonNegative = 0.0,
        cutmix_alpha: NonNegative = 0.0,
        label_smoothing: RateBelow1 = 0.0,
        erasing_probability: Fraction = 0.0,
    ) -> None:
        """Put a fresh head on the encoder; see `Classifier`.

        Args:
            encoder: Pretrained, or with random weights.
            classes: Names of the classes, by label.
            mixup_alpha: Beta parameter of mixup; 0 turns it off.
            cutmix_alpha: Beta parameter of cutmix; 0 turns it off. With both, each batch draws one.
            label_smoothing: Mass spread over all classes, in [0, 1).
            erasing_probability: Probability of erasing one box of an image, filled with noise.
        """
        super().__init__(encoder, classes)
        num_classes = len(self.classes)
        self.head = _fresh_head(encoder, num_classes)
        self.mixing = {
            "mixup_alpha": mixup_alpha,
            "cutmix_alpha": cutmix_alpha,
            "label_smoothing": label_smoothing,
            "erasing_probability": erasing_probability,
        }
        self.label_smoothing = label_smoothing
        self.mixup: Any = None
        if mixup_alpha > 0 or cutmix_alpha > 0:
            self.mixup = make_mixup(
                mixup_alpha, cutmix_alpha, label_smoothing=label_smoothing, num_classes=num_classes
            )
        self.erasing = make_erasing(erasing_probability, mode="pixel", device="cpu")

    def make_transform(
        self, augmentation: Augmentation, pixels: PixelFormat, *, seed: int
    ) -> LabeledTransform:
        """See `Objective.make_transform`."""
        return LabeledTransform(augmentation, pixels, seed=seed)

    def make_collate(self) -> Collate:
        """See `Objective.make_collate`."""
        return collate_labeled

    def predict(self, images: Tensor) -> Tensor:
        """Return class scores (B, num_classes) of normalised images (B, C, H, W)."""
        return _scores(self, images)

    def forward(self, batch: LabeledBatch, normalize: Normalize) -> Output:
        """Erase, mix, classify; in eval mode only classify, so that one image has a loss too."""
        images = normalize(batch.pixels)
        if self.training:
            self.erasing.device = images.device
            images = self.erasing(images)
        if self.mixup is None or not self.training:
            scores = self.predict(images)
            loss = F.cross_entropy(scores, batch.labels, label_smoothing=self.label_smoothing)
        else:
            images, soft_labels = self.mixup(images, batch.labels)
            loss = F.cross_entropy(self.predict(images), soft_labels)
        return Output(loss)

    def new_metrics(self) -> dict[str, Metric]:
        """Cross entropy without smoothing, and top-1 accuracy in [0, 1]."""
        accuracy = MulticlassAccuracy(len(self.classes), average="micro")
        return {"loss": MeanMetric(), "top1": accuracy}

    def evaluate(
        self, metrics: Mapping[str, Metric], batch: LabeledBatch, normalize: Normalize
    ) -> None:
        """See `Objective.evaluate`."""
        scores = self.predict(normalize(batch.pixels))
        metrics["loss"].update(F.cross_entropy(scores, batch.labels), weight=len(scores))
        metrics["top1"].update(scores, batch.labels)

    def check_batch_size(self, batch_size: int, global_batch_size: int) -> None:
        """Refuse batches that mixing cannot pair.

        Raises:
            UserError: If mixing is on and the batch size is odd.
        """
        if self.mixup is not None and batch_size % 2:
            raise UserError(f"mixup and cutmix pair images: batch_size {batch_size} must be even")

    def preview(self, batch: LabeledBatch, normalize: Normalize) -> Figure:
        """The augmented images."""
        return (ImageColumn("input", normalize(batch.pixels)),)

    def figure(self, batch: LabeledBatch, normalize: Normalize) -> Figure:
        """Nothing: classes are no images."""
        return ()

    def resized(self, img_size_px: int | Sequence[int]) -> Self:
        """See `Task.resized`."""
        encoder = resize_encoder(self.encoder, img_size_px=img_size_px)
        other = type(self)(encoder, self.classes, **self.mixing)
        other.head.load_state_dict(self.head.state_dict())
        return other

    def export(self) -> Export:
        """See `Task.export`."""
        return classifier_export(self, self.classes)

    def describe(self) -> str:
        """See `Objective.describe`."""
        return f"classification of {counted(len(self.classes), 'class')}"


def classifier_export(model: "Classifier | Classification", classes: Sequence[str]) -> Export:
    """Return a classifier's weights by timm's names.

    Args:
        model: Model with encoder and head.
        classes: Names of the classes, by label.
    """
    prefix = model.encoder.head_prefix
    head = {f"{prefix}.{name}": tensor for name, tensor in model.head.state_dict().items()}
    state = model.encoder.model.state_dict() | head
    return Export(state, {"label_names": list(classes)}, len(classes))


def _fresh_head(encoder: Encoder, num_classes: int) -> nn.Linear:
    head = nn.Linear(encoder.num_features, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    with torch.no_grad():
        head.weight.mul_(encoder.head_init_scale)
    return head


def _scores(model: "Classifier | Classification", images: Tensor) -> Tensor:
    scores: Tensor = model.head(model.encoder.pool(model.encoder(images)))
    return scores

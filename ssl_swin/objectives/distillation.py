"""Feature distillation: predict the whitened feature map of a frozen teacher, of the same view.

Reference: Feature Distillation (arXiv:2205.14141). Equal to the original implementation to
rounding on Swin students and teachers, see tests/objectives/test_distillation_golden.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from ssl_swin.data.batch import LabeledBatch, collate_labeled
from ssl_swin.data.samples import Augmentation, LabeledTransform, PixelFormat
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.sizes import Size
from ssl_swin.errors import UserError
from ssl_swin.objectives.base import Collate, Normalize, Objective, Output
from ssl_swin.objectives.teacher import Teacher

LEAST_CONTRAST = 1e-4  # loss of predicting 0 below which it is rounding, and no measure


class FeatureDistillation(Objective):
    """A student whose last map, after one linear layer, is to be a teacher's.

    The loss is smooth L1 between the prediction and the teacher's map, each cell of which is
    whitened over its channels. The linear layer is thrown away at the end.

    Differs from the reference where maps differ: a teacher's finer map is averaged down to the
    student's cells before it is whitened. Class tokens take no part.

    Attributes:
        teacher: The teacher.
        beta: Where smooth L1 goes from a square to a line.
        pooled: Teacher's cells along a side of a student's.
    """

    title = "feature distillation"
    tags = ("feature-distillation",)
    places: ClassVar[tuple[str, ...]] = ("teacher",)

    def __init__(
        self,
        encoder: Encoder,
        teacher: Teacher,
        *,
        beta: float = 2.0,
        pool_to_student: bool = True,
    ) -> None:
        """Put a student beside its teacher.

        Args:
            encoder: The student.
            teacher: The teacher.
            beta: Difference at which smooth L1 goes from a square to a line, above 0.
            pool_to_student: Whether a teacher's map of N times as many rows and columns as the
                student's is averaged over N x N cells; else it is refused.

        Raises:
            UserError: If the teacher takes other images, or the maps do not fit.
        """
        super().__init__(encoder)
        if teacher.in_chans != encoder.in_chans:
            raise UserError(
                f"objective.teacher={teacher.name} takes images of {teacher.in_chans} channels, "
                f"and the student takes {encoder.in_chans}: choose a teacher for such images, or "
                f"set data.channels={teacher.in_chans} with data.mean and data.std for each"
            )
        self.teacher = teacher
        self.beta = beta
        rows, columns = (side // encoder.stride for side in encoder.img_size_px)
        self.pooled = _pooled(teacher, (rows, columns), pool_to_student)
        self.projection = nn.Conv2d(encoder.num_features, teacher.width, kernel_size=1)

    def make_transform(
        self, augmentation: Augmentation, pixels: PixelFormat, *, seed: int
    ) -> LabeledTransform:
        """See `Objective.make_transform`."""
        return LabeledTransform(augmentation, pixels, seed=seed)

    def make_collate(self) -> Collate:
        """See `Objective.make_collate`."""
        return collate_labeled

    def forward(self, batch: LabeledBatch, normalize: Normalize) -> Output:
        """See `Objective.forward`."""
        return Output(self._losses(batch, normalize).loss)

    def new_metrics(self) -> dict[str, Metric]:
        """The loss, and its share of that of predicting 0, the mean of every whitened cell.

        Of a teacher whose cells are constant there is no share: such batches do not count.
        """
        return {"loss": MeanMetric(), "loss_vs_mean": MeanMetric()}

    def evaluate(
        self, metrics: Mapping[str, Metric], batch: LabeledBatch, normalize: Normalize
    ) -> None:
        """See `Objective.evaluate`."""
        loss, guess = self._losses(batch, normalize)
        metrics["loss"].update(loss, weight=len(batch.names))
        counts = guess > LEAST_CONTRAST
        share = torch.where(counts, loss / guess, 0.0)
        metrics["loss_vs_mean"].update(share, weight=len(batch.names) * counts)

    def target(self, pixels: Tensor) -> Tensor:
        """Return what is to be predicted of raw pixels (B, C, H, W): (B, width, rows, columns)."""
        features = self.teacher(pixels)
        with torch.autocast(features.device.type, enabled=False):
            return whitened(F.avg_pool2d(features.float(), self.pooled))

    def outside(self) -> dict[str, str]:
        """See `Objective.outside`."""
        return {"teacher": self.teacher.digest}

    def describe(self) -> str:
        """See `Objective.describe`."""
        rows, columns = self.teacher.grid
        averaged = f", averaged over {self.pooled}x{self.pooled}" if self.pooled > 1 else ""
        return (
            f"feature distillation from {self.teacher.name} (width {self.teacher.width}, "
            f"{rows}x{columns} cells{averaged})"
        )

    def _losses(self, batch: LabeledBatch, normalize: Normalize) -> "Losses":
        prediction = self.projection(self.encoder(normalize(batch.pixels)))
        target = self.target(batch.pixels)
        with torch.autocast(target.device.type, enabled=False):
            loss = F.smooth_l1_loss(prediction.float(), target, beta=self.beta)
            guess = F.smooth_l1_loss(torch.zeros_like(target), target, beta=self.beta)
        return Losses(loss, guess)


class Losses(NamedTuple):
    """Scalars of a batch."""

    loss: Tensor
    guess: Tensor  # of predicting 0


def whitened(features: Tensor) -> Tensor:
    """Bring each cell of a map (B, C, H, W) to mean 0 and variance 1 over its channels."""
    cells = features.movedim(1, -1)
    return F.layer_norm(cells, cells.shape[-1:]).movedim(-1, 1)


def _pooled(teacher: Teacher, grid: Size, pool_to_student: bool) -> int:
    """Return how many of the teacher's cells lie along a side of a student's.

    Raises:
        UserError: If it is no whole number, or must be 1 and is not.
    """
    factors = {theirs / ours for theirs, ours in zip(teacher.grid, grid, strict=True)}
    factor = factors.pop()
    if not factors and (factor == 1 or (pool_to_student and factor.is_integer())):
        return int(factor)
    cells, own, size = (_by(pair) for pair in (teacher.grid, grid, teacher.size_px))
    problem = (
        f"objective.teacher={teacher.name} makes {cells} cells of {size} px, and the student {own}"
    )
    if not factors and factor.is_integer():
        raise UserError(f"{problem}: set objective.pool_to_student=true to average them")
    fitting = [
        max(1, round(theirs / ours)) * ours * (side // theirs)
        for theirs, ours, side in zip(teacher.grid, grid, teacher.size_px, strict=True)
    ]
    sizes = str(fitting[0]) if len(set(fitting)) == 1 else f"[{fitting[0]},{fitting[1]}]"
    raise UserError(
        f"{problem}: one must be a whole multiple of the other. Give the teacher smaller or larger "
        f"images, as objective.teacher_size_px={sizes}, or choose another teacher"
    )


def _by(pair: Sequence[Any]) -> str:
    return "x".join(map(str, pair))

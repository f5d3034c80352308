"""Losses of self-distillation over prototypes: a student's scores against a teacher's, centred.

Scores are similarities to K prototypes. The teacher's become a distribution, its centre subtracted
and sharpened by a temperature; the student's distribution is to be the same.

References: DINO (arXiv:2104.14294) for whole images, iBOT (arXiv:2111.07832) for masked cells,
EsViT (arXiv:2106.09785) for matched regions. Equal to the originals to rounding, see
tests/objectives/test_self_distillation.py.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_swin.objectives.over_ranks import mean_over_ranks

PairLoss = Callable[[int, int], Tensor]  # of the numbers of a student's and of a teacher's view


class Centre(nn.Module):
    """The moving average of a teacher's scores, which no prototype may exceed for long.

    Attributes:
        mean: The average, float32 (K,); 0 at the start.
    """

    mean: Tensor

    def __init__(self, num_prototypes: int, *, momentum: float) -> None:
        """Start at 0.

        Args:
            num_prototypes: K.
            momentum: What remains of the average at an update, in [0, 1].
        """
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(num_prototypes))

    @torch.no_grad()
    def update(self, scores: Tensor) -> None:
        """Move towards the mean of scores over all devices; all of them must call it.

        Args:
            scores: Mean score of each prototype on this device, (K,).
        """
        new = mean_over_ranks(scores.to(self.mean.dtype))
        self.mean.copy_(self.mean * self.momentum + new * (1 - self.momentum))


def targets(scores: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Return the distributions (..., K) that a teacher's scores (..., K) ask for, in float32."""
    return ((scores.float() - centre) / temperature).softmax(-1)


def image_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float) -> Tensor:
    """Return the cross-entropy of whole images, a mean over all pairs of different views.

    Args:
        student: Scores (B, K) of each view; the first of them are the teacher's views.
        teacher: Targets (B, K) of each of the teacher's views.
        temperature: What the student's scores are divided by.
    """

    def loss(view: int, taught: int) -> Tensor:
        return _cross_entropy(student[view], teacher[taught], temperature).mean()

    return _mean_over_pairs(loss, len(student), len(teacher))


def cell_loss(
    student: Tensor, teacher: Tensor, weight: Tensor, num_images: int, temperature: float
) -> Tensor:
    """Return the cross-entropy of masked cells: a mean over those of an image, and over images.

    An image without masked cells adds 0.

    Args:
        student: Scores (M, K) of the masked cells of all images.
        teacher: Targets (M, K) of the same cells of the same views.
        weight: 1 / masked cells of the same image, (M,).
        num_images: Number of images, each view counted as one.
        temperature: What the student's scores are divided by.
    """
    return (_cross_entropy(student, teacher, temperature) * weight).sum() / num_images


def region_loss(
    student: Sequence[Tensor],
    student_features: Sequence[Tensor],
    teacher: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    temperature: float,
) -> Tensor:
    """Return EsViT's cross-entropy of cells, a mean over all pairs of different views.

    The target of a cell is that of the cell of the other view whose feature is most like its own.

    Args:
        student: Scores (B, N, K) of the cells of each view, N of which may differ; the first views
            are the teacher's.
        student_features: Features (B, N, C) of the same cells.
        teacher: Targets (B, N, K) of the cells of each of the teacher's views.
        teacher_features: Features (B, N, C) of the same cells.
        temperature: What the student's scores are divided by.
    """

    def loss(view: int, taught: int) -> Tensor:
        match = most_alike(student_features[view], teacher_features[taught])
        target = teacher[taught].gather(1, match[..., None].expand(-1, -1, teacher[0].shape[-1]))
        return _cross_entropy(student[view], target, temperature).mean()

    return _mean_over_pairs(loss, len(student), len(teacher))


@torch.no_grad()
def most_alike(cells: Tensor, others: Tensor) -> Tensor:
    """Return which of the others (B, N, C) each cell (B, V, C) is most like by its cosine: (B, V).

    Neither has to have length 1.
    """
    with torch.autocast(cells.device.type, enabled=False):
        others = F.normalize(others.float(), dim=-1)
        return (F.normalize(cells.float(), dim=-1) @ others.transpose(1, 2)).argmax(-1)


def entropy(distributions: Tensor) -> Tensor:
    """Return the mean entropy of distributions (..., K) as a share of the largest, ln K."""
    mean: Tensor = torch.special.entr(distributions).sum(-1).mean()
    return mean / math.log(distributions.shape[-1])


def _cross_entropy(scores: Tensor, target: Tensor, temperature: float) -> Tensor:
    return -(target * F.log_softmax(scores.float() / temperature, dim=-1)).sum(-1)


def _mean_over_pairs(loss: PairLoss, num_student: int, num_teacher: int) -> Tensor:
    losses = [loss(view, taught) for view, taught in _pairs(num_student, num_teacher)]
    return torch.stack(losses).mean()


def _pairs(num_student: int, num_teacher: int) -> Iterator[tuple[int, int]]:
    for taught in range(num_teacher):
        yield from ((view, taught) for view in range(num_student) if view != taught)

"""The teacher of self-distillation: encoder and head that follow the student's, and centres."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.objectives.cells import MaskedCells
from ssl_swin.objectives.momentum import follow, momentum_encoder
from ssl_swin.objectives.projection_head import ProjectionHead
from ssl_swin.objectives.self_distillation import Centre, targets


class Taught(NamedTuple):
    """What a teacher makes of R whole images, of which M cells are masked for the student."""

    pooled: Tensor  # features (R, num_features)
    images: Tensor  # scores (R, K)
    cells: Tensor  # scores of the masked cells (M, K)
    cell_mean: Tensor  # mean score of all cells (K,)
    features: Tensor  # of all cells (R, N, num_features)
    projected: Tensor  # of all cells (R, N, D)


class MomentumTeacher(nn.Module):
    """Sees whole images, and says what the student is to make of them.

    Scores of all cells are computed only on demand: their mean is the score of the mean.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: ProjectionHead,
        cell_head: ProjectionHead | None,
        make_head: Callable[[], ProjectionHead],
        *,
        centre_momentum: float,
    ) -> None:
        """Copy a student.

        Args:
            encoder: The student's.
            head: The student's.
            cell_head: The student's of cells, if they have another.
            make_head: Makes another of its shape.
            centre_momentum: What remains of the centres at an update.
        """
        super().__init__()
        self.network = momentum_encoder(encoder)
        self.head = _copy(head, make_head)
        self.cell_head = None if cell_head is None else _copy(cell_head, make_head)
        num_prototypes = len(head.prototypes)
        self.image_centre = Centre(num_prototypes, momentum=centre_momentum)
        self.cell_centre = Centre(num_prototypes, momentum=centre_momentum)

    @torch.no_grad()
    def forward(self, images: Tensor, masked: MaskedCells) -> Taught:
        """Look at normalised images (R, C, H, W), and score the masked cells."""
        features = self.network(images)
        pooled = self.network.pool(features)
        cells = features.flatten(2).transpose(1, 2)
        cell_head = self._heads[-1]
        projected = cell_head.project(cells)
        return Taught(
            pooled=pooled,
            images=self.head(pooled),
            cells=cell_head.compare(projected.flatten(0, 1)[masked.places]),
            cell_mean=cell_head.compare(projected.mean((0, 1))),
            features=cells,
            projected=projected,
        )

    def image_targets(self, taught: Taught, temperature: float) -> Tensor:
        """Return what whole images are to be, (R, K)."""
        return targets(taught.images, self.image_centre.mean, temperature)

    def cell_targets(self, taught: Taught, temperature: float) -> Tensor:
        """Return what the masked cells are to be, (M, K)."""
        return targets(taught.cells, self.cell_centre.mean, temperature)

    @torch.no_grad()
    def all_cell_targets(self, taught: Taught, temperature: float) -> Tensor:
        """Return what all cells are to be, (R, N, K)."""
        scores = self._heads[-1].compare(taught.projected)
        return targets(scores, self.cell_centre.mean, temperature)

    def update_centres(self, taught: Taught) -> None:
        """Move the centres towards the scores of all devices, all of which must call it."""
        self.image_centre.update(taught.images.mean(0))
        self.cell_centre.update(taught.cell_mean)

    def follow(self, encoder: Encoder, heads: Sequence[ProjectionHead], momentum: float) -> None:
        """Move towards the student; see `momentum.follow`."""
        follow([self.network, *self._heads], [encoder, *heads], momentum)

    @property
    def _heads(self) -> list[ProjectionHead]:
        """The head of images, and that of cells if it is another."""
        return [self.head] if self.cell_head is None else [self.head, self.cell_head]


def _copy(head: ProjectionHead, make_head: Callable[[], ProjectionHead]) -> ProjectionHead:
    copied = make_head()
    copied.load_state_dict(head.state_dict())
    return copied.requires_grad_(False)

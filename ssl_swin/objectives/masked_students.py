"""Students of masked self-distillation: what an encoder makes of images it sees in part.

The dense one sees mask tokens in the place of masked patches, as SimMIM and iBOT do. The sparse one
sees visible patches alone, and a small decoder predicts what the teacher sees in the others.
Neither holds the encoder, which belongs to the objective.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.visible import VisibleEncoder
from ssl_swin.masking import expand_mask
from ssl_swin.objectives.masked_views import MaskedViewsBatch
from ssl_swin.objectives.patch_decoder import PatchDecoder


class Seen(NamedTuple):
    """What a student makes of R images, of which M cells are masked altogether."""

    images: Tensor  # pooled features (R, num_features)
    cells: Tensor  # features of the masked cells (M, num_features), as the batch lists them
    pixels: Tensor | None  # predicted values of the masked cells (M, values of a cell)
    tokens: Tensor | None  # features of all cells (R, N, num_features), where they are computed


class Student(nn.Module, ABC):
    """What a student has besides its encoder."""

    undecayed: tuple[str, ...]  # names of parameters that weight decay spares

    @abstractmethod
    def forward(self, encoder: Encoder, images: Tensor, batch: MaskedViewsBatch) -> Seen:
        """Look at masked images.

        Args:
            encoder: The student's.
            images: Normalised views (R, C, H, W), all first ones first.
            batch: Their masks, and the list of masked cells.
        """


class DenseStudent(Student):
    """Mask tokens run through the whole encoder.

    Behind a stem whose patches overlap, masked pixels are painted with the data's mean before.
    """

    undecayed = ("mask_token",)

    def __init__(self, encoder: Encoder, *, predicts_pixels: bool) -> None:
        """Make the mask token.

        Args:
            encoder: Declares widths.
            predicts_pixels: Whether pixels of masked cells are predicted too.
        """
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.embed_dim))
        bound = encoder.init_bound
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-bound, b=bound)
        values = encoder.stride**2 * encoder.in_chans
        self.to_pixels = nn.Linear(encoder.num_features, values) if predicts_pixels else None

    def forward(self, encoder: Encoder, images: Tensor, batch: MaskedViewsBatch) -> Seen:
        """See `Student.forward`."""
        if encoder.overlapping_patches:
            hidden = expand_mask(batch.masks, (images.shape[-2], images.shape[-1]))
            images = images.masked_fill(hidden[:, None], 0.0)
        tokens = encoder.embed(images)
        masked = expand_mask(batch.masks, (tokens.shape[1], tokens.shape[2]))
        tokens = torch.where(masked[..., None], self.mask_token.to(tokens.dtype), tokens)
        features = encoder.encode(tokens)
        cells = features.flatten(2).transpose(1, 2)
        shown = cells.reshape(-1, cells.shape[-1])[batch.cells.places]
        pixels = None if self.to_pixels is None else self.to_pixels(shown)
        return Seen(encoder.pool(features), shown, pixels, cells)


class SparseStudent(Student):
    """The encoder computes visible patches alone; a decoder predicts the masked cells.

    What is pooled is the visible cells. All images must show as many.
    """

    undecayed = ("decoder.mask_token", "decoder.pos_embed")

    def __init__(
        self,
        encoder: VisibleEncoder,
        *,
        depth: int,
        dim: int | None,
        fixed_positions: bool,
        predicts_pixels: bool,
    ) -> None:
        """Build the decoder.

        Args:
            encoder: Declares widths and cells.
            depth: Blocks of the decoder.
            dim: Their width, see `PatchDecoder`.
            fixed_positions: See `PatchDecoder`.
            predicts_pixels: Whether pixels of masked cells are predicted too.

        Raises:
            UserError: If the decoder cannot be built.
        """
        super().__init__()
        values = encoder.stride**2 * encoder.in_chans if predicts_pixels else 0
        self.parts = (encoder.num_features, values)
        self.decoder = PatchDecoder(
            encoder, sum(self.parts), dim=dim, depth=depth, fixed_positions=fixed_positions
        )

    def forward(self, encoder: Encoder, images: Tensor, batch: MaskedViewsBatch) -> Seen:
        """See `Student.forward`."""
        assert isinstance(encoder, VisibleEncoder)
        features = encoder.encode_visible(images, batch.plan)
        visible = batch.plan.visible.repeat(len(images) // len(batch.plan.visible), 1)
        num_cells = encoder.last_grid[0] * encoder.last_grid[1]
        masked = batch.cells.places.view(len(images), -1) % num_cells
        predicted = self.decoder(features, visible, masked).flatten(0, 1)
        cells, pixels = predicted.split(self.parts, dim=-1)
        pooled = encoder.pool(features.transpose(1, 2).unsqueeze(-1))
        return Seen(pooled, cells, pixels if self.parts[1] else None, None)

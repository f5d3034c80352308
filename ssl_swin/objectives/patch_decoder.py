"""The decoder of sparse objectives: a small transformer that predicts what the encoder left out."""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssl_swin.encoders.kernels import DecoderAttention, HasKernels, Kernels
from ssl_swin.encoders.positions import sine_cosine
from ssl_swin.encoders.visible import VisibleEncoder
from ssl_swin.encoders.windows.layout import take_rows
from ssl_swin.errors import UserError
from ssl_swin.objectives.cells import over_channels

_HEAD_DIM = 32  # of the attention, as in Swin


class PatchDecoder(nn.Module, HasKernels):
    """A transformer over all cells of an image, visible or not, and a head on the masked ones.

    Attributes:
        kernel: How its cells attend; None goes by the device.
    """

    kernel: DecoderAttention | None = None

    def __init__(
        self,
        encoder: VisibleEncoder,
        out_dim: int,
        *,
        dim: int | None,
        depth: int,
        fixed_positions: bool,
    ) -> None:
        """Build the decoder for an encoder's features.

        Args:
            encoder: Declares the width of its features and the cells of its last map.
            out_dim: Values that are predicted of a cell.
            dim: Width of the blocks, a multiple of 32; None is half the encoder's last width,
                rounded up.
            depth: Number of blocks.
            fixed_positions: Whether cells have sines and cosines of their row and column, as in
                MAE, instead of positions that are learnt from nearly nothing.

        Raises:
            UserError: If the width is no multiple of 32.
        """
        super().__init__()
        half = -(-encoder.num_features // (2 * _HEAD_DIM)) * _HEAD_DIM
        dim = half if dim is None else dim
        if dim % _HEAD_DIM:
            raise UserError(f"decoder_dim must be a multiple of {_HEAD_DIM}, got {dim}")
        rows, columns = encoder.last_grid
        self.embed = nn.Linear(encoder.num_features, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, rows * columns, dim))
        self.blocks = nn.ModuleList(
            Block(dim, dim // _HEAD_DIM, qkv_bias=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, out_dim)
        for parameter in (self.mask_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        if fixed_positions:
            self.pos_embed.requires_grad_(False).copy_(sine_cosine(rows, columns, dim))

    def use_kernels(self, kernels: Kernels) -> None:
        """See `HasKernels.use_kernels`."""
        self.kernel = kernels.decoder_attention

    def forward(self, features: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """Predict masked cells.

        Args:
            features: (B, V, num_features).
            visible: Cells that they belong to, int64 (B, V).
            masked: Cells to predict, int64 (B, M).

        Returns:
            Values (B, M, out_dim).
        """
        shown = self.embed(features)
        tokens = self.mask_token.to(shown.dtype).expand(len(shown), self.pos_embed.shape[1], -1)
        tokens = tokens.scatter(1, over_channels(visible, shown), shown) + self.pos_embed
        # On a CPU torch's fused attention takes half as long again for so few tokens.
        is_fused = tokens.device.type != "cpu" if self.kernel is None else self.kernel == "fused"
        for block in self.blocks:
            block.attn.fused_attn = is_fused  # type: ignore[union-attr]
            tokens = block(tokens)
        predicted: Tensor = self.head(self.norm(take_rows(tokens, masked)))
        return predicted

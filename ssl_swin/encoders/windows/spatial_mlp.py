"""Swin-MLP's block: a Swin block whose tokens are mixed by fixed matrices instead of attention.

Reference: Swin Transformer's `swin_mlp.py`. Each head has one matrix over the places of a window,
the same for all of its channels and all windows. A shifted map is filled up with zeros to windows
of its own instead of being rolled, so that no window joins two rims.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import (
    SwinTransformerBlock,
    window_partition,
    window_reverse,
)
from torch import Tensor, nn

from ssl_swin.encoders.windows.blocks import WindowBlock, add_branch
from ssl_swin.encoders.windows.kernels import is_plain
from ssl_swin.encoders.windows.layout import WindowLayout

_INIT_STD = 0.02


class SpatialMlpBlock(WindowBlock, SwinTransformerBlock):  # type: ignore[misc]
    """A block that normalises before the mixing of tokens and before the MLP.

    Attributes:
        spatial_mlp: Holds the matrices, (heads * area, area, 1), and a bias per head and place.
        num_heads: Number of matrices.
        pads_shift: A shifted map is filled up with zeros.
    """

    pads_shift = True

    def __init__(self, dim: int, input_resolution: Any, num_heads: int, **block: Any) -> None:
        """Builds the block with random weights; see timm's Swin block.

        Args:
            dim: Width.
            input_resolution: Rows and columns of the map.
            num_heads: Number of matrices.
            **block: Further arguments of timm's block.
        """
        super().__init__(dim, input_resolution, num_heads, dynamic_mask=True, **block)
        del self.attn
        self.num_heads = num_heads
        area = self.window_area
        self.spatial_mlp = nn.Conv1d(num_heads * area, num_heads * area, 1, groups=num_heads)
        nn.init.trunc_normal_(self.spatial_mlp.weight, std=_INIT_STD)
        nn.init.zeros_(self.spatial_mlp.bias)  # type: ignore[arg-type]

    @classmethod
    def like(cls, block: Any, num_heads: int) -> "SpatialMlpBlock":
        """Returns a block of the sizes of timm's block, with fresh weights."""
        return cls(
            block.dim,
            block.input_resolution,
            num_heads,
            window_size=block.window_size,
            shift_size=block.target_shift_size,
            drop_path=getattr(block.drop_path1, "drop_prob", 0.0),
        )

    def compute(
        self, tokens: Tensor, layout: WindowLayout, scale1: Tensor | None, scale2: Tensor | None
    ) -> Tensor:
        """Computes the block; see `WindowBlock.compute`."""
        groups = layout.gather(self.norm1(tokens))
        tokens = add_branch(tokens, layout.scatter(self._mixed(groups), tokens), scale1)
        return add_branch(tokens, self.mlp(self.norm2(tokens)), scale2)

    def set_input_size(self, *args: Any, **kwargs: Any) -> None:
        """Refuses: the matrices are for one window.

        Raises:
            ValueError: Always.
        """
        raise ValueError("a Swin-MLP cannot be fitted to another image size or window")

    def _attn(self, tokens: Tensor) -> Tensor:
        """Mixes a map (B, H, W, C), as timm's block calls its attention."""
        size, (high, wide) = tokens.shape, self.window_size
        down, across = self.shift_size
        top, left = -down % high, -across % wide
        tokens = F.pad(tokens, (0, 0, left, across, top, down))
        windows = window_partition(tokens, self.window_size)
        groups = windows.view(size[0], -1, self.window_area, size[3])
        mixed = self._mixed(groups).view(-1, high, wide, size[3])
        whole: Tensor = window_reverse(mixed, self.window_size, tokens.shape[1], tokens.shape[2])
        return whole[:, top : top + size[1], left : left + size[2]].contiguous()

    def _mixed(self, groups: Tensor) -> Tensor:
        """Mixes the tokens of windows (B, G, area, C), those of each head by its own matrix."""
        layer, heads = self.spatial_mlp, self.num_heads
        parts = groups.view(*groups.shape[:3], heads, -1)  # (B, G, area, heads, width of a head)
        if not is_plain(layer, nn.Conv1d):
            rows = parts.permute(0, 1, 3, 2, 4).flatten(2, 3).flatten(0, 1)
            mixed: Tensor = layer(rows).view(*groups.shape[:2], heads, groups.shape[2], -1)
            return mixed.permute(0, 1, 3, 2, 4).reshape(groups.shape)
        matrices = layer.weight.view(heads, groups.shape[2], -1)
        bias: Any = layer.bias
        mixed = torch.einsum("hts,bgshd->bgthd", matrices, parts)
        mixed = mixed + bias.view(heads, -1).t()[..., None].to(mixed.dtype)
        return mixed.reshape(groups.shape).contiguous()

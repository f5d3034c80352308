"""Window attention, V1 and V2: timm's modules, called on tokens in any layout.

Differs from the reference: the position bias and the shift mask are broadcast over the batch, and
under autocast V1 adds the bias to its scores in their own dtype, as rounded as they are; V2, whose
scores may be a hundred times as large, adds in float32 as the reference does.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import swin_transformer, swin_transformer_v2
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from ssl_swin.encoders.kernels import Attention, HasKernels, Kernels
from ssl_swin.encoders.windows.kernels import is_plain
from ssl_swin.encoders.windows.layout import WindowLayout

_LARGEST_LOGIT_SCALE = math.log(100.0)  # Swin V2 (arXiv:2111.09883, section 3.2): tau >= 0.01
_BIAS_RANGE = 16.0  # of V2's position bias, in its public code


class WindowAttention(nn.Module, HasKernels):
    """What the attention of both versions has in common.

    Without a layout it computes what timm's own does.

    Attributes:
        kernel: How the tokens of a group attend.
    """

    kernel: Attention = "products"
    num_heads: int
    window_size: tuple[int, int]
    relative_position_index: Tensor
    proj: nn.Module

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, *, layout: WindowLayout | None = None
    ) -> Tensor:
        """Attends among the tokens of each group.

        Args:
            tokens: (B, N, C).
            mask: Mask of timm's own forward, which is computed without a layout.
            layout: Layout of the tokens.

        Returns:
            (B, N, C).
        """
        if layout is None:
            return super().forward(tokens, mask)  # type: ignore[no-any-return]
        groups = layout.gather(tokens)
        heads = (3, self.num_heads, tokens.shape[-1] // self.num_heads)
        qkv = self.project(groups).view(*groups.shape[:3], *heads)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B', G, heads, S, dim of a head)
        attends: dict[Attention, Callable[..., Tensor]] = {
            "products": self._by_products,
            "fused": self._fused,
            "flex": self._flex,
        }
        with torch.autocast(tokens.device.type, enabled=False):
            mixed = attends[self.kernel](query, key, value, layout)
        mixed = mixed.transpose(2, 3).reshape(groups.shape)
        return self.proj(layout.scatter(mixed, tokens))  # type: ignore[no-any-return]

    def use_kernels(self, kernels: Kernels) -> None:
        """See `HasKernels.use_kernels`."""
        self.kernel = kernels.attention

    def _by_products(
        self, query: Tensor, key: Tensor, value: Tensor, layout: WindowLayout
    ) -> Tensor:
        scores = self.scores(query, key)
        scores = scores + layout.bias(self.window_bias(scores.dtype))
        return scores.softmax(-1).to(value.dtype) @ value

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, layout: WindowLayout) -> Tensor:
        bias = layout.bias(self.window_bias(value.dtype))
        bias = bias.expand(*query.shape[:2], *bias.shape[1:])
        parts = (*self.scaled(query, key), value, bias)
        queries, keys, values, biases = (part.flatten(0, 1) for part in parts)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=biases, scale=1.0)
        return mixed.view(query.shape)

    def _flex(self, query: Tensor, key: Tensor, value: Tensor, layout: WindowLayout) -> Tensor:
        # The gradient of the bias is added up in its dtype, over all windows.
        window = self.window_bias(torch.promote_types(value.dtype, torch.float32))
        parts = (part.flatten(0, 1) for part in (*self.scaled(query, key), value))
        is_compiled = query.device.type != "cpu" and not torch.compiler.is_compiling()
        attend: Any = compiled_flex() if is_compiled else flex_attention
        mixed: Any = attend(*parts, score_mod=layout.score_mod(window), scale=1.0)
        return mixed.view(query.shape)  # type: ignore[no-any-return]

    def window_bias(self, dtype: torch.dtype) -> Tensor:
        """Returns the position bias of a whole window, (area, heads, area)."""
        area = math.prod(self.window_size)
        window = self.bias_table().index_select(0, self.relative_position_index.flatten())
        return window.to(dtype).view(area, area, -1).transpose(1, 2)

    @abstractmethod
    def project(self, groups: Tensor) -> Tensor:
        """Returns queries, keys and values, (..., 3 * C), of groups (..., C)."""

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Returns the scores (..., S, S) of queries and keys, each (..., S, dim of a head)."""
        queries, keys = self.scaled(query, key)
        return queries @ keys.transpose(-2, -1)

    @abstractmethod
    def scaled(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Returns queries and keys whose products are the scores, in the dtype that they have."""

    @abstractmethod
    def bias_table(self) -> Tensor:
        """Returns the position bias of every offset, (offsets, heads)."""


@cache
def compiled_flex() -> Callable[..., Any]:
    """Returns FlexAttention compiled: as it is, it would write all scores."""
    return torch.compile(flex_attention)


class WindowAttentionV1(WindowAttention, swin_transformer.WindowAttention):  # type: ignore[misc]
    """Scaled products, and a bias from a table."""

    def project(self, groups: Tensor) -> Tensor:
        """Returns queries, keys and values, (..., 3 * C), of groups (..., C)."""
        return self.qkv(groups)  # type: ignore[no-any-return]

    def scaled(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Returns queries and keys whose products are the scores."""
        return query * self.scale, key

    def bias_table(self) -> Tensor:
        """Returns the position bias of every offset, (offsets, heads)."""
        table: Tensor = self.relative_position_bias_table
        return table


class WindowAttentionV2(WindowAttention, swin_transformer_v2.WindowAttention):  # type: ignore[misc]
    """Scaled cosines, and a bias that a small network computes from offsets."""

    def project(self, groups: Tensor) -> Tensor:
        """Returns queries, keys and values, (..., 3 * C), of groups (..., C)."""
        bias: Any = None
        if self.q_bias is not None:
            parts: Any = (self.q_bias, self.k_bias, self.v_bias)
            bias = torch.cat(parts)
        if is_plain(self.qkv, nn.Linear):
            return F.linear(groups, self.qkv.weight, bias)
        projected: Tensor = self.qkv(groups)
        return projected if bias is None else projected + bias.to(projected.dtype)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Returns the scores (..., S, S), in float32 under autocast."""
        cosines = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
        scaled: Tensor = cosines * self._factor()
        return scaled

    def scaled(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Returns queries and keys whose products are the scores."""
        queries = (F.normalize(query, dim=-1) * self._factor()).to(query.dtype)
        return queries, F.normalize(key, dim=-1)

    def _factor(self) -> Tensor:
        """Returns what the cosines of each head are multiplied by, (heads, 1, 1)."""
        factor: Tensor = self.logit_scale.clamp(max=_LARGEST_LOGIT_SCALE).exp()
        return factor

    def bias_table(self) -> Tensor:
        """Returns the position bias of every offset, (offsets, heads)."""
        scores = self.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
        return _BIAS_RANGE * scores.sigmoid()  # type: ignore[no-any-return]

"""Window attention, V1 and V2, with timm's modules on tokens in any layout.

Differs from the reference: the position bias and the shift mask are broadcast over the batch, and
under autocast V1 adds the bias to its scores in their own dtype, as rounded as they are; V2, whose
scores may be a hundred times as large, adds in float32 as the reference does.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_swin.encoders.windows.layout import WindowLayout, from_slots, to_slots

_LARGEST_LOGIT_SCALE = math.log(100.0)  # Swin V2 (arXiv:2111.09883, section 3.2): tau >= 0.01
_BIAS_RANGE = 16.0  # of V2's position bias, in its public code


def window_attention(attn: Any, tokens: Tensor, layout: WindowLayout) -> Tensor:
    """Attention among the tokens of each group.

    Args:
        attn: timm's window attention, V1 or V2.
        tokens: (B, N, C).
        layout: Where they attend.

    Returns:
        (B, N, C).
    """
    images, count, dim = tokens.shape
    if layout.put is not None:
        count = len(layout.put)  # of all images that share a layout
    elif layout.places is not None:
        count *= len(layout.places)
    slots = to_slots(tokens.reshape(-1, count, dim), layout)
    size = math.prod(attn.window_size) if layout.places is None else layout.places.shape[1]
    qkv = _project(attn, slots).view(len(slots), -1, size, 3, attn.num_heads, dim // attn.num_heads)
    query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B', G, heads, S, dim of a head)
    with torch.autocast(tokens.device.type, enabled=False):
        scores = _scores(attn, query, key)
        scores = scores + _position_bias(attn, layout, scores.dtype)
        mixed = scores.softmax(-1).to(value.dtype) @ value
    mixed = mixed.transpose(2, 3).reshape(len(slots), -1, dim)
    return attn.proj(from_slots(mixed, layout).view(images, -1, dim))  # type: ignore[no-any-return]


def _project(attn: Any, slots: Tensor) -> Tensor:
    if not hasattr(attn, "logit_scale"):
        return attn.qkv(slots)  # type: ignore[no-any-return]
    bias = None if attn.q_bias is None else torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
    return F.linear(slots, attn.qkv.weight, bias)


def _scores(attn: Any, query: Tensor, key: Tensor) -> Tensor:
    if not hasattr(attn, "logit_scale"):
        products: Tensor = (query * attn.scale) @ key.transpose(-2, -1)
        return products
    cosines = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
    scaled: Tensor = cosines * attn.logit_scale.clamp(max=_LARGEST_LOGIT_SCALE).exp()
    return scaled


def _position_bias(attn: Any, layout: WindowLayout, dtype: torch.dtype) -> Tensor:
    """Gives what is added to the scores, (G or 1, heads, S, S)."""
    if hasattr(attn, "logit_scale"):
        scores = attn.cpb_mlp(attn.relative_coords_table).view(-1, attn.num_heads)
        table: Tensor = _BIAS_RANGE * scores.sigmoid()
    else:
        table = attn.relative_position_bias_table
    area = math.prod(attn.window_size)
    window = table.index_select(0, attn.relative_position_index.flatten()).to(dtype)
    window = window.view(area, area, -1).transpose(1, 2)  # (area, heads, area)
    if layout.places is None:
        bias = window.transpose(0, 1)[None]
    else:
        # Chosen by products with one-hot rows: the gradient is then a product too, not millions of
        # additions to one small table.
        places = layout.places.to(dtype)
        groups, size, _ = places.shape
        rows = (places.flatten(0, 1) @ window.flatten(1)).view(groups, -1, area)
        bias = (rows @ places.transpose(1, 2)).view(groups, size, -1, size).transpose(1, 2)
    return bias if layout.hidden is None else bias + layout.hidden.to(dtype)

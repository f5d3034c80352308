"""Swin blocks, V1 and V2, computed with timm's modules on tokens in any layout (L1).

Equal to timm's own forward to rounding. What differs: the position bias and the shift mask are
broadcast over the batch, windows are gathered once per layer, tokens stay in window order between
layers, and under autocast attention stays in its dtype. Nothing here holds state.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssl_swin.windows.kernels import gelu_linear
from ssl_swin.windows.layout import (
    StageLayout,
    WindowLayout,
    from_slots,
    reorder,
    to_slots,
)

_LARGEST_LOGIT_SCALE = math.log(
    100.0
)  # Swin V2 (arXiv:2111.09883, section 3.2): tau is not below 0.01
_BIAS_RANGE = 16.0  # of V2's position bias, in its public code

RunBlock = Callable[..., Tensor]


def run_stages(
    stages: nn.Module, tokens: Tensor, layouts: Sequence[StageLayout], run_block: RunBlock
) -> Iterator[Tensor]:
    """Runs timm's stages one after another and gives the tokens after each.

    Args:
        stages: `layers` of timm's Swin, V1 or V2.
        tokens: Patch tokens (B, N, embed_dim) in the first layout's order.
        layouts: One per stage.
        run_block: `swin_block`, or what `compiled_block` gives.
    """
    for stage, layout in zip(stages, layouts, strict=True):  # type: ignore[call-overload]
        if not isinstance(stage.downsample, nn.Identity):
            tokens = _merge_patches(stage.downsample, tokens, layout)
        for block, windows in zip(stage.blocks, layout.blocks, strict=True):
            kept = [_path_scale(path, tokens) for path in (block.drop_path1, block.drop_path2)]
            arguments = (block, tokens, windows, *kept)
            if stage.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(run_block, *arguments, use_reentrant=False)
            else:
                tokens = run_block(*arguments)
        yield tokens


def swin_block(
    block: Any, tokens: Tensor, layout: WindowLayout, kept1: Tensor | None, kept2: Tensor | None
) -> Tensor:
    """One block: attention within groups, then the MLP, each on a residual path.

    Args:
        block: timm's block.
        tokens: (B, N, C).
        layout: Where they attend.
        kept1: (B, 1, 1), what the attention's path of each image is multiplied by; None is 1.
        kept2: Likewise for the MLP's.
    """
    if hasattr(block.attn, "logit_scale"):  # V2 normalises after, V1 before
        tokens = _add(tokens, block.norm1(_attention(block.attn, tokens, layout)), kept1)
        return _add(tokens, block.norm2(_mlp(block.mlp, tokens)), kept2)
    tokens = _add(tokens, _attention(block.attn, block.norm1(tokens), layout), kept1)
    return _add(tokens, _mlp(block.mlp, block.norm2(tokens)), kept2)


@cache
def compiled_block() -> RunBlock:
    """Gives `swin_block` compiled: once per shape, for all blocks that share it.

    A graph break is an error. The number of bins of packed layouts is a variable of the graph.
    """
    # Every stage, shifted or not, trained or evaluated, is a variant of this one function.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    compiled = torch.compile(swin_block, fullgraph=True, dynamic=False)

    def run(block: Any, tokens: Tensor, layout: WindowLayout, *kept: Tensor | None) -> Tensor:
        if layout.filled is not None:
            for part in (layout.take, layout.filled, layout.places, layout.hidden):
                torch._dynamo.maybe_mark_dynamic(part, 0)
        return compiled(block, tokens, layout, *kept)

    return run


def _add(tokens: Tensor, branch: Tensor, kept: Tensor | None) -> Tensor:
    return tokens + (branch if kept is None else branch * kept)


def _path_scale(path: nn.Module, tokens: Tensor) -> Tensor | None:
    """Draws which images keep a residual path (stochastic depth, arXiv:1603.09382)."""
    if not path.training or isinstance(path, nn.Identity):
        return None
    keep = 1.0 - path.drop_prob  # type: ignore[operator]
    return tokens.new_empty(len(tokens), 1, 1).bernoulli_(keep).div_(keep)


def _merge_patches(merging: Any, tokens: Tensor, layout: StageLayout) -> Tensor:
    if layout.merge is not None and layout.unmerge is not None:
        tokens = reorder(tokens, layout.merge, layout.unmerge)
    merged = tokens.reshape(len(tokens), tokens.shape[1] // 4, -1)
    if merging.norm.normalized_shape[0] == merged.shape[-1]:  # V1
        return merging.reduction(merging.norm(merged))  # type: ignore[no-any-return]
    return merging.norm(merging.reduction(merged))  # type: ignore[no-any-return]


def _attention(attn: Any, tokens: Tensor, layout: WindowLayout) -> Tensor:
    images, count, dim = tokens.shape
    if layout.put is not None:
        count = len(layout.put)  # of all images that share a layout
    elif layout.places is not None:
        count *= len(layout.places)
    slots = to_slots(tokens.reshape(-1, count, dim), layout)
    area, heads = math.prod(attn.window_size), attn.num_heads
    size = area if layout.places is None else layout.places.shape[1]
    qkv = _project(attn, slots).view(len(slots), -1, size, 3, heads, dim // heads)
    query, key, value = qkv.permute(3, 0, 1, 4, 2, 5)  # each (B', G, heads, S, dim of a head)
    if hasattr(attn, "logit_scale"):
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        scale = attn.logit_scale.clamp(max=_LARGEST_LOGIT_SCALE).exp()
        query = query * scale
    else:
        query = query * attn.scale
    with torch.autocast(tokens.device.type, enabled=False):
        bias = _position_bias(attn, layout, qkv.dtype)
        query, key = query.to(qkv.dtype), key.to(qkv.dtype)
        scores = query @ key.transpose(-2, -1) + bias
        mixed = scores.softmax(-1) @ value
    mixed = mixed.transpose(2, 3).reshape(len(slots), -1, dim)
    return attn.proj(from_slots(mixed, layout).view(images, -1, dim))  # type: ignore[no-any-return]


def _mlp(mlp: Any, tokens: Tensor) -> Tensor:
    return gelu_linear(mlp.fc1(tokens), mlp.fc2.weight, mlp.fc2.bias)


def _project(attn: Any, slots: Tensor) -> Tensor:
    if not hasattr(attn, "logit_scale"):
        return attn.qkv(slots)  # type: ignore[no-any-return]
    bias = None if attn.q_bias is None else torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
    return F.linear(slots, attn.qkv.weight, bias)


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

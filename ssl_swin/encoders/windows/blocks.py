"""Swin blocks, V1 and V2, computed with timm's modules on tokens in any layout.

Equal to timm's own forward to rounding. What differs: windows are gathered once per layer, tokens
stay in window order between layers, and a GELU is computed again instead of kept. Nothing here
holds state.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssl_swin.encoders.windows.attention import window_attention
from ssl_swin.encoders.windows.kernels import gelu_linear
from ssl_swin.encoders.windows.layout import StageLayout, WindowLayout, reorder

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
        tokens = _add(tokens, block.norm1(window_attention(block.attn, tokens, layout)), kept1)
        return _add(tokens, block.norm2(_mlp(block.mlp, tokens)), kept2)
    tokens = _add(tokens, window_attention(block.attn, block.norm1(tokens), layout), kept1)
    return _add(tokens, _mlp(block.mlp, block.norm2(tokens)), kept2)


@cache
def compiled_block() -> RunBlock:
    """Gives `swin_block` compiled for training: once per shape, for all blocks that share it.

    A graph break is an error. The number of bins of packed layouts is a variable of the graph.
    """
    # Every stage, shifted or not, is a variant of this one function.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    compiled = torch.compile(swin_block, fullgraph=True, dynamic=False)

    def run(block: Any, tokens: Tensor, layout: WindowLayout, *kept: Tensor | None) -> Tensor:
        if not torch.is_grad_enabled():
            return swin_block(block, tokens, layout, *kept)  # batches of many sizes, a few of each
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


def _mlp(mlp: Any, tokens: Tensor) -> Tensor:
    return gelu_linear(mlp.fc1(tokens), mlp.fc2.weight, mlp.fc2.bias)

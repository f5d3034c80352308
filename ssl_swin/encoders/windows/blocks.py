"""Swin's stages and blocks, V1 and V2: timm's modules, called on tokens in any layout.

Equal to timm's own forward to rounding. What differs: windows are gathered once per layer, tokens
stay in window order between layers, and a GELU is computed again instead of kept. A block is one
call: hooks on it, sharding and profilers see each block once per pass, also where its computation
is compiled or repeated for the backward pass.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from timm.layers.mlp import Mlp
from timm.models import swin_transformer, swin_transformer_v2
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssl_swin.encoders.kernels import CompileMode, HasKernels, Kernels
from ssl_swin.encoders.kernels import Mlp as MlpKernel
from ssl_swin.encoders.windows.kernels import gelu_linear, is_plain
from ssl_swin.encoders.windows.layout import Order, StageLayout, WindowLayout

Compute = Callable[..., Tensor]


class WindowStage(nn.Module):
    """A stage of either version; without a layout it computes what timm's own does."""

    downsample: nn.Module
    grad_checkpointing: bool

    def forward(self, tokens: Tensor, layout: StageLayout | None = None) -> Tensor:
        """Merges patches, unless it is the first stage, and runs the blocks.

        Args:
            tokens: (B, N, C) in the order of the stage before.
            layout: Layout of the tokens.

        Returns:
            (B, N', C') in the order of this stage.
        """
        if layout is None:
            return super().forward(tokens)  # type: ignore[no-any-return]
        if not isinstance(self.downsample, nn.Identity):
            tokens = self.downsample(tokens, layout.merging)
        blocks: Any = self.blocks
        for block, windows in zip(blocks, layout.blocks, strict=True):
            tokens = block(
                tokens,
                windows,
                is_checkpointed=self.grad_checkpointing,
                may_compile=layout.is_recurring,
            )
        return tokens


class WindowStageV1(WindowStage, swin_transformer.SwinTransformerStage):  # type: ignore[misc]
    """A stage of Swin V1."""


class WindowStageV2(WindowStage, swin_transformer_v2.SwinTransformerV2Stage):  # type: ignore[misc]
    """A stage of Swin V2."""


class WindowBlock(nn.Module, ABC):
    """A block of either version; without a layout it computes what timm's own does.

    Attributes:
        is_compiled: Whether training compiles its computation.
        compile_mode: What with.
    """

    drop_path1: nn.Module
    drop_path2: nn.Module
    is_compiled = False
    compile_mode: CompileMode = "default"

    def forward(
        self,
        tokens: Tensor,
        layout: WindowLayout | None = None,
        *,
        is_checkpointed: bool = False,
        may_compile: bool = True,
    ) -> Tensor:
        """Attends within groups, then runs the MLP, each on a residual path.

        Args:
            tokens: (B, N, C).
            layout: Layout of the tokens that attend.
            is_checkpointed: Compute again in the backward pass instead of keeping activations.
            may_compile: False for a layout that hardly ever comes again.

        Returns:
            (B, N, C).
        """
        if layout is None:
            return super().forward(tokens)  # type: ignore[no-any-return]
        scales = [drop_path_scale(path, tokens) for path in (self.drop_path1, self.drop_path2)]
        is_trained = torch.is_grad_enabled()  # else come batches of many sizes, a few of each
        is_compiled = self.is_compiled and may_compile and is_trained
        compute = compiled_compute(self.compile_mode) if is_compiled else _compute
        if is_checkpointed and is_trained:
            return checkpoint(compute, self, tokens, layout, *scales, use_reentrant=False)
        return compute(self, tokens, layout, *scales)

    @abstractmethod
    def compute(
        self, tokens: Tensor, layout: WindowLayout, scale1: Tensor | None, scale2: Tensor | None
    ) -> Tensor:
        """Computes the block.

        Args:
            tokens: (B, N, C).
            layout: Layout of the tokens that attend.
            scale1: Drop path's factor on the attention's path of each image, (B, 1, 1); None is 1.
            scale2: Likewise for the MLP's.
        """


class WindowBlockV1(WindowBlock, swin_transformer.SwinTransformerBlock):  # type: ignore[misc]
    """A block that normalises before attention and MLP."""

    def compute(
        self, tokens: Tensor, layout: WindowLayout, scale1: Tensor | None, scale2: Tensor | None
    ) -> Tensor:
        """Computes the block; see `WindowBlock.compute`."""
        tokens = add_branch(tokens, self.attn(self.norm1(tokens), layout=layout), scale1)
        return add_branch(tokens, self.mlp(self.norm2(tokens)), scale2)


class WindowBlockV2(WindowBlock, swin_transformer_v2.SwinTransformerV2Block):  # type: ignore[misc]
    """A block that normalises after attention and MLP."""

    def compute(
        self, tokens: Tensor, layout: WindowLayout, scale1: Tensor | None, scale2: Tensor | None
    ) -> Tensor:
        """Computes the block; see `WindowBlock.compute`."""
        tokens = add_branch(tokens, self.norm1(self.attn(tokens, layout=layout)), scale1)
        return add_branch(tokens, self.norm2(self.mlp(tokens)), scale2)


class MergingV1(swin_transformer.PatchMerging):
    """Patch merging that normalises before its product; without an order it is timm's own."""

    def forward(self, tokens: Tensor, order: Order | None = None) -> Tensor:
        """Merges each four tokens (B, N, C) that the order brings together: (B, N / 4, 2 * C)."""
        if order is None:
            return super().forward(tokens)
        return self.reduction(self.norm(_fours(tokens, order)))  # type: ignore[no-any-return]


class MergingV2(swin_transformer_v2.PatchMerging):
    """Patch merging that normalises after its product; without an order it is timm's own."""

    def forward(self, tokens: Tensor, order: Order | None = None) -> Tensor:
        """Merges each four tokens (B, N, C) that the order brings together: (B, N / 4, 2 * C)."""
        if order is None:
            return super().forward(tokens)
        return self.norm(self.reduction(_fours(tokens, order)))  # type: ignore[no-any-return]


class RecomputingMlp(Mlp, HasKernels):
    """timm's MLP, which keeps its hidden layer for the backward pass, and not GELU's result.

    Attributes:
        kernel: Whether it does so, or keeps that too.
    """

    kernel: MlpKernel = "recompute"

    def use_kernels(self, kernels: Kernels) -> None:
        """See `HasKernels.use_kernels`."""
        self.kernel = kernels.mlp

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns (..., C) of tokens (..., C)."""
        hidden = self.fc1(tokens)
        recomputes = self.kernel == "recompute"
        if recomputes and is_plain(self.act, nn.GELU) and is_plain(self.fc2, nn.Linear):
            bias: Any = self.fc2.bias
            return gelu_linear(hidden, self.fc2.weight, bias)
        return self.fc2(self.act(hidden))  # type: ignore[no-any-return]


def drop_path_scale(path: nn.Module, tokens: Tensor) -> Tensor | None:
    """Draws which images keep a residual path (stochastic depth, arXiv:1603.09382).

    Returns:
        (B, 1, 1), 0 or what keeps the mean; None where none is dropped.
    """
    if not path.training or isinstance(path, nn.Identity):
        return None
    keep = 1.0 - path.drop_prob  # type: ignore[operator]
    return tokens.new_empty(len(tokens), 1, 1).bernoulli_(keep).div_(keep)


@cache
def compiled_compute(mode: CompileMode) -> Compute:
    """Returns `WindowBlock.compute` compiled: once per shape, for all blocks that share it.

    A graph break is an error. The number of bins is a variable of the graph; CUDA graphs, of modes
    that use them, are made for every number of bins that comes up.

    Args:
        mode: Of `torch.compile`.
    """
    # Every stage, shifted or not, is a variant of this one function.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    compiled = torch.compile(_compute, fullgraph=True, dynamic=False, mode=mode)

    def compute(
        block: WindowBlock, tokens: Tensor, layout: WindowLayout, *scales: Tensor | None
    ) -> Tensor:
        for part in layout.parts_with_varying_groups():
            torch._dynamo.maybe_mark_dynamic(part, 0)
        return compiled(block, tokens, layout, *scales)

    return compute


def _compute(
    block: WindowBlock, tokens: Tensor, layout: WindowLayout, *scales: Tensor | None
) -> Tensor:
    return block.compute(tokens, layout, *scales)


def add_branch(tokens: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
    """Adds a residual path to tokens (B, N, C), scaled by (B, 1, 1) where it may be dropped."""
    return tokens + (branch if scale is None else branch * scale)


def _fours(tokens: Tensor, order: Order) -> Tensor:
    """Returns tokens (B, N, C) as rows of four, (B, N / 4, 4 * C)."""
    tokens = order.apply(tokens)
    return tokens.reshape(len(tokens), tokens.shape[1] // 4, -1)

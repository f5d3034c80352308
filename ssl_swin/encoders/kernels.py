"""Which of several equal computations a model uses: only time and memory hang on it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import nn

Attention = Literal["products", "fused", "flex"]
DecoderAttention = Literal["products", "fused"]
Mlp = Literal["recompute", "keep"]
PatchEmbedding = Literal["product", "conv", "channels_last"]
Head = Literal["all", "masked"]
Optimizer = Literal["fused", "foreach"]
CompileMode = Literal[
    "default", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune"
]  # torch.compile's own names; the second and the last one use CUDA graphs


@dataclass(frozen=True)
class Kernels:
    """The choices; all are equal to rounding.

    Attributes:
        attention: Of windows: by matrix products, torch's fused one with the position bias as its
            mask, or FlexAttention, which looks the bias up where it is used.
        mlp: Whether the result of a block's GELU is computed again in the backward pass, or kept.
        decoder_attention: Of the decoder of sparse objectives.
        patch_embedding: Of whole images: one matrix product, or torch's convolution with the
            images' channels first or last in memory.
        head: Of dense SimMIM in training: on all cells of the last map, or on masked ones alone.
        optimizer: AdamW's implementation, where torch's own is used and may be fused.
        compile_mode: What blocks are compiled with, if they are.
        bin_multiple: The number of a Swin's bins of visible tokens is rounded up to a multiple of
            it: CUDA graphs are made for each number.
    """

    attention: Attention
    mlp: Mlp
    decoder_attention: DecoderAttention
    patch_embedding: PatchEmbedding
    head: Head
    optimizer: Optimizer
    compile_mode: CompileMode
    bin_multiple: int


class HasKernels(ABC):
    """A module that can compute in several ways."""

    @abstractmethod
    def use_kernels(self, kernels: Kernels) -> None:
        """Take the choices that are this module's."""


def use_kernels(model: nn.Module, kernels: Kernels) -> None:
    """Set the choices of a model and all inside it, teachers and targets too.

    Args:
        model: An encoder, an objective with its encoders, or what trains that.
        kernels: The choices.
    """
    for module in model.modules():
        if isinstance(module, HasKernels):
            module.use_kernels(kernels)

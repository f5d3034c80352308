"""Which of several equal computations a model uses: only time and memory hang on it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import nn

Attention = Literal["products", "fused"]
Mlp = Literal["recompute", "keep"]


@dataclass(frozen=True)
class Kernels:
    """The choices; all are equal to rounding.

    Attributes:
        attention: Of windows: by matrix products, or torch's fused one with the position bias as
            its mask.
        mlp: Whether the result of a block's GELU is computed again in the backward pass, or kept.
        decoder_attention: Of the decoder of sparse objectives.
    """

    attention: Attention
    mlp: Mlp
    decoder_attention: Attention


class HasKernels(ABC):
    """A module that can compute in several ways."""

    @abstractmethod
    def use_kernels(self, kernels: Kernels) -> None:
        """Take the choices that are this module's."""


def use_kernels(model: nn.Module, kernels: Kernels) -> None:
    """Set the choices of a model and all inside it, teachers and targets too.

    Args:
        model: An encoder, or an objective with its encoders.
        kernels: The choices.
    """
    for module in model.modules():
        if isinstance(module, HasKernels):
            module.use_kernels(kernels)

"""Proof that a file computes what the network does: the same pixels through both."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_swin.deploy.network import Network, PixelType, example_pixels
from ssl_swin.errors import UserError

Runner = Callable[[Tensor], Sequence[Tensor]]  # of a written file
BATCH_SIZES = (1, 2, 5)
MOST_APART = 1e-4  # of the largest value


class Difference(NamedTuple):
    """How far two implementations are apart."""

    largest: float
    scale: float  # largest value

    def __str__(self) -> str:
        return f"largest difference {self.largest:.1e}, of values up to {self.scale:.2g}"


@torch.no_grad()
def prove(network: Network, run: Runner, dtype: PixelType) -> Difference:
    """Compare a file with its network on noise, at several batch sizes.

    Args:
        network: The network.
        run: Runs the file on pixels.
        dtype: Of the pixels.

    Raises:
        UserError: If they differ by more than rounding, or the file takes one batch size alone.
    """
    largest = scale = 0.0
    for batch_size in BATCH_SIZES:
        pixels = example_pixels(network, batch_size, dtype, seed=batch_size)
        answer = network.module(pixels)
        expected = answer if isinstance(answer, tuple) else (answer,)
        found = run(pixels)
        if [tuple(each.shape) for each in found] != [tuple(each.shape) for each in expected]:
            raise UserError(
                f"the exported file gives {[tuple(each.shape) for each in found]} for a batch of "
                f"{batch_size}, and the network {[tuple(each.shape) for each in expected]}"
            )
        for ours, theirs in zip(expected, found, strict=True):
            apart = float((ours - theirs).abs().max())
            largest = largest if apart <= largest else apart  # also if it is not a number
            scale = max(scale, float(ours.abs().max()))
    difference = Difference(largest, scale)
    if not largest <= MOST_APART * max(scale, 1e-6):
        raise UserError(f"the exported file does not compute what the network does: {difference}")
    return difference

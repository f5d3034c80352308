"""Masked views of each image: one example, a batch, and how both are made of encoded samples."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_swin.data.rng import keyed_generator
from ssl_swin.masking import block_mask, random_mask
from ssl_swin.objectives.cells import MaskedCells, masked_cells
from ssl_swin.objectives.view_batches import ViewsTransform, collate_views

MaskShape = Literal["patches", "blocks"]


class MaskedViewsExample(NamedTuple):
    """One image in V views, and a mask of each."""

    views: list[Tensor]  # uint8, uint16 or float32 (C, H, W); local ones last, of another size
    masks: list[Tensor]  # bool (rows, columns), True = masked; none of local views
    name: str  # of the image in its set


class MaskedViewsBatch(NamedTuple):
    """A batch of V views of each of B images, with a mask of each view, and of local views."""

    pixels: Tensor  # the first views, uint8, uint16 or float32 (B, C, H, W)
    others: list[Tensor]  # further ones, each (B, C, H, W)
    masks: Tensor  # bool (V * B, rows, columns), those of the first views first
    cells: MaskedCells  # the masked cells of the last map, of the V * B views in this order
    names: list[str]  # B
    plan: Any = None  # what the encoder works out of the masks ahead of the step
    local: Sequence[Tensor] = ()  # smaller views without a mask, each (B, C, height, width)

    def unmasked(self) -> "MaskedViewsBatch":
        """Return the batch without masks."""
        none = MaskedCells(*(listed[:0] for listed in self.cells))
        return self._replace(masks=torch.zeros_like(self.masks), cells=none)


class MaskDraw(NamedTuple):
    """How many mask patches of a view are masked."""

    grid: tuple[int, int]  # mask patches of an image, (rows, columns)
    ratio: tuple[float, float]  # lowest and highest share of them that is masked, in (0, 1)
    probability: float  # that any is, in [0, 1]
    shape: MaskShape = "patches"  # each by itself, an exact count; or in blocks, at most as many

    def __call__(self, generator: np.random.Generator) -> Tensor:
        """Draw a mask, bool (rows, columns), True = masked; the count is rounded up."""
        if generator.random() >= self.probability:
            return torch.zeros(self.grid, dtype=torch.bool)
        ratio = float(generator.uniform(*self.ratio))
        if self.shape == "blocks":
            return block_mask(self.grid, ratio, generator)
        return random_mask(self.grid, ratio, generator, batch_size=1)[0]


class MaskedViewsTransform:
    """Makes several views of an image, and draws a mask of each but the local ones.

    A mask is a function of (seed, epoch, name, view), by a generator of its own.
    """

    def __init__(self, views: ViewsTransform, draw: MaskDraw, *, num_masked: int) -> None:
        """Set the transform up.

        Args:
            views: Makes the views.
            draw: Draws a mask.
            num_masked: Number of views that have a mask; those that follow are local.
        """
        self.views = views
        self.draw = draw
        self.num_masked = num_masked

    def __call__(self, encoded: Any, epoch: int) -> MaskedViewsExample:
        """Make the example of an encoded sample in an epoch."""
        views, name = self.views(encoded, epoch)
        key = self.views.seed, epoch, name
        masks = [
            self.draw(keyed_generator(*key, f"mask of view {number + 1}"))
            for number in range(self.num_masked)
        ]
        return MaskedViewsExample(views, masks, name)


def collate_masked_views(
    examples: Sequence[MaskedViewsExample],
    grid: tuple[int, int],
    plan: Callable[[Tensor], Any] | None = None,
) -> MaskedViewsBatch:
    """Make a batch of examples.

    Args:
        examples: Examples to stack.
        grid: Rows and columns of the encoder's last map.
        plan: Works something out of the masks (V * B, rows, columns), here where no step waits for
            it.
    """
    pixels, others, names = collate_views(examples)  # type: ignore[arg-type]
    by_view = [torch.stack(masks) for masks in zip(*(e.masks for e in examples), strict=True)]
    others, local = others[: len(by_view) - 1], others[len(by_view) - 1 :]
    masks = torch.cat(by_view)
    planned = None if plan is None else plan(masks)
    cells = masked_cells(masks, grid)
    return MaskedViewsBatch(pixels, others, masks, cells, names, planned, local)

"""The layout of a whole image: every window full, every token in it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_swin.encoders.windows.layout import StageLayout, WindowLayout


class DenseLayouts(NamedTuple):
    """The layouts of every stage."""

    orders: list[Tensor]  # int64 (N,), raster indices of a stage's tokens
    inverses: list[Tensor]  # int64 (N,), the place of each raster index
    stages: list[StageLayout]


def dense_layouts(model: Any, device: torch.device) -> DenseLayouts:
    """Lays out the tokens of whole images for a timm Swin, V1 or V2.

    A stage keeps its tokens in the order of its unshifted windows, so that only shifted blocks and
    the merging of patches move them.

    Args:
        model: timm's model; its windows tile every map, as `check_sizes` makes sure.
        device: Where the layouts go.
    """
    orders: list[Tensor] = []
    layouts = []
    for stage in model.layers:
        first = stage.blocks[0]
        order = _window_order(first.input_resolution, first.window_size)
        merge = _children(orders[-1], order, first.input_resolution) if orders else None
        blocks: dict[tuple[int, ...], WindowLayout] = {}
        for block in stage.blocks:
            if block.shift_size not in blocks:
                blocks[block.shift_size] = _windows(block, order)
        unmerge = None if merge is None else inverse(merge)
        in_order = tuple(blocks[block.shift_size] for block in stage.blocks)
        layouts.append(StageLayout(merge, unmerge, in_order).to(device))
        orders.append(order)
    inverses = [inverse(order).to(device) for order in orders]
    return DenseLayouts([order.to(device) for order in orders], inverses, layouts)


def inverse(order: Tensor) -> Tensor:
    """Gives the permutation that undoes one, int64 (N,)."""
    undone = torch.empty_like(order)
    undone[order] = torch.arange(len(order), device=order.device)
    return undone


def _window_order(
    resolution: tuple[int, int], window: tuple[int, int], shift: tuple[int, ...] = (0, 0)
) -> Tensor:
    """Raster indices (N,) of a map's tokens, window after window of the map rolled by `shift`."""
    (rows, columns), (high, wide) = resolution, window
    raster = torch.arange(rows * columns).view(rows, columns)
    raster = raster.roll((-shift[0], -shift[1]), (0, 1))
    windows = raster.view(rows // high, high, columns // wide, wide).transpose(1, 2)
    return windows.flatten()


def _children(before: Tensor, order: Tensor, resolution: tuple[int, int]) -> Tensor:
    """Places of the four tokens that each token merges, in timm's order: down, then across."""
    columns = resolution[1]
    top = 2 * (order // columns) * 2 * columns + 2 * (order % columns)
    four = torch.stack([top, top + 2 * columns, top + 1, top + 2 * columns + 1], dim=1)
    return inverse(before)[four.flatten()]


def _windows(block: Any, order: Tensor) -> WindowLayout:
    if not any(block.shift_size):
        return WindowLayout(None, None, None, None, None)
    shifted = _window_order(block.input_resolution, block.window_size, block.shift_size)
    take = inverse(order)[shifted]
    return WindowLayout(take, inverse(take), None, None, block.attn_mask[:, None].cpu())

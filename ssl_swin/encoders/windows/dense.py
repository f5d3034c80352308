"""The layouts of whole images: every token takes part.

At the size that a model was built for, windows tile every map (`check_sizes` makes sure), and a
stage whose map is no larger than its window has one window and no shift. Images of any size follow
the rule of the original's segmentation and detection code instead: a map is filled up with zeros on
the right and at the bottom to whole windows, after the norm and before the cyclic shift; the zeros
are attended to like tokens; maps of an odd side get a row or column of zeros before patches are
merged; windows never shrink, and every second block shifts, also where one window holds the map.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_swin.encoders.sizes import Size
from ssl_swin.encoders.windows.layout import (
    MovedWindows,
    Order,
    PaddedOrder,
    Permutation,
    SameOrder,
    StageLayout,
    WholeWindows,
    WindowLayout,
)

_OTHER_REGION = -100.0  # added to scores between regions of a shifted window, as in the original


class DenseLayouts(NamedTuple):
    """The layouts of every stage.

    Attributes:
        sizes: Rows and columns of every stage's map.
        orders: Permutations from raster order to the order of every stage's tokens.
        stages: What the stages are called with.
    """

    sizes: list[Size]
    orders: list[Order]
    stages: list[StageLayout]


def dense_layouts(
    model: Any,
    size: Size,
    device: torch.device,
    *,
    any_size: bool = False,
    is_recurring: bool = True,
) -> DenseLayouts:
    """Lays out the tokens of whole images for a timm Swin, V1 or V2.

    A stage whose windows tile its map keeps its tokens in the order of its unshifted windows, so
    that only shifted blocks and the merging of patches move them.

    Args:
        model: timm's model.
        size: Rows and columns of patch tokens.
        device: Device of the layouts.
        any_size: Follow the rule for images of any size. Otherwise the size is the model's own.
        is_recurring: Whether other passes bring this size again; see `StageLayout`.
    """
    sizes: list[Size] = []
    indices: list[Tensor] = []
    stages: list[StageLayout] = []
    for stage in model.layers:
        merging: Order = SameOrder()
        if sizes:
            before = sizes[-1]
            size = (-(-before[0] // 2), -(-before[1] // 2))
        windows = [_window_and_shift(block, any_size=any_size) for block in stage.blocks]
        index = _stage_order(size, windows[0][0])
        if sizes:
            merging = _merging(before, indices[-1], size, index)
        pads = any(getattr(block, "pads_shift", False) for block in stage.blocks)
        layout_of = _padded_shift_layout if pads else _layout
        layouts = {
            (window, shift): layout_of(size, window, shift, index, device)
            for window, shift in windows
        }
        blocks = tuple(layouts[window_and_shift] for window_and_shift in windows)
        stages.append(StageLayout(merging.to(device), blocks, is_recurring=is_recurring))
        sizes.append(size)
        indices.append(index)
    return DenseLayouts(sizes, [Permutation.of(index).to(device) for index in indices], stages)


def _window_and_shift(block: Any, *, any_size: bool) -> tuple[Size, Size]:
    """Returns a block's window, which its position bias is for, and its cyclic shift."""
    if not any_size:
        return tuple(block.window_size), tuple(block.shift_size)
    high, wide = block.attn.window_size
    is_shifted = any(block.target_shift_size)
    return (high, wide), (high // 2, wide // 2) if is_shifted else (0, 0)


def _layout(
    size: Size, window: Size, shift: Size, stage_order: Tensor, device: torch.device
) -> WindowLayout:
    """Returns the layout of one block.

    Args:
        size: Rows and columns of the map.
        window: Rows and columns of a window.
        shift: Rows and columns that the map is rolled by.
        stage_order: Raster indices of the stage's tokens, int64 (N,).
        device: Device of the layout.
    """
    is_tiled = _padded(size, window) == size
    if is_tiled and not any(shift):
        return WholeWindows(window[0] * window[1])
    slots = _window_order(size, window, shift)
    order: Order
    if is_tiled:
        order = Permutation.of(Permutation.of(stage_order).inverse[slots])
    else:  # the stage's tokens are in raster order
        order = PaddedOrder.of(slots, len(stage_order))
    return MovedWindows(order, _attn_bias(_padded(size, window), window, shift)).to(device)


def _padded_shift_layout(
    size: Size, window: Size, shift: Size, stage_order: Tensor, device: torch.device
) -> WindowLayout:
    """Returns the layout of a block whose shift moves windows over the rims, where zeros are.

    Args:
        size: Rows and columns of the map, which windows tile.
        window: Rows and columns of a window.
        shift: Rows and columns of zeros at the bottom and on the right; what they lack of a window
            is at the top and on the left.
        stage_order: Raster indices of the stage's tokens, int64 (N,).
        device: Device of the layout.
    """
    if not any(shift):
        return _layout(size, window, shift, stage_order, device)
    (rows, columns), (high, wide), (down, across) = size, window, shift
    top, left = -down % high, -across % wide
    places = torch.full((top + rows + down, left + columns + across), rows * columns)
    places[top : top + rows, left : left + columns] = Permutation.of(stage_order).inverse.view(
        rows, columns
    )
    order = PaddedOrder.of(_in_windows(places, window).flatten(), rows * columns)
    area = high * wide
    return MovedWindows(order, torch.zeros(1, 1, area, area)).to(device)


def _padded(size: Size, window: Size) -> Size:
    """Returns the sides of a map filled up to whole windows."""
    (rows, columns), (high, wide) = size, window
    return -(-rows // high) * high, -(-columns // wide) * wide


def _stage_order(size: Size, window: Size) -> Tensor:
    """Returns raster indices (N,) in the order of the windows, or as they are with padding."""
    if _padded(size, window) == size:
        return _window_order(size, window, (0, 0))
    return torch.arange(size[0] * size[1])


def _window_order(size: Size, window: Size, shift: Size) -> Tensor:
    """Returns raster indices of a map's tokens, window after window of the padded, rolled map.

    What is filled up has the index N, the number of tokens.
    """
    (rows, columns), (all_rows, all_columns) = size, _padded(size, window)
    raster = torch.full((all_rows, all_columns), rows * columns)
    raster[:rows, :columns] = torch.arange(rows * columns).view(rows, columns)
    return _in_windows(raster.roll((-shift[0], -shift[1]), (0, 1)), window).flatten()


def _attn_bias(padded: Size, window: Size, shift: Size) -> Tensor:
    """Returns what keeps regions apart that a cyclic shift brought together.

    Returns:
        Float (windows, 1, area, area); (1, 1, area, area) of zeros without a shift.
    """
    area = window[0] * window[1]
    if not any(shift):
        return torch.zeros(1, 1, area, area)
    wrapped_rows = torch.arange(padded[0]) >= padded[0] - shift[0]
    wrapped_columns = torch.arange(padded[1]) >= padded[1] - shift[1]
    regions = _in_windows(2 * wrapped_rows[:, None] + wrapped_columns, window)
    is_apart = regions[:, :, None] != regions[:, None, :]
    return torch.zeros(is_apart.shape).masked_fill(is_apart, _OTHER_REGION)[:, None]


def _in_windows(values: Tensor, window: Size) -> Tensor:
    """Returns values (rows, columns) of a map as (windows, area)."""
    (rows, columns), (high, wide) = values.shape, window
    tiles = values.view(rows // high, high, columns // wide, wide).transpose(1, 2)
    return tiles.reshape(-1, high * wide)


def _merging(before: Size, order_before: Tensor, size: Size, order: Tensor) -> Order:
    """Returns the order that brings together what each token merges: down, then across.

    Args:
        before: Rows and columns of the stage before.
        order_before: Raster indices of its tokens, int64 (N,).
        size: Rows and columns of the stage.
        order: Raster indices of its tokens, int64 (M,).
    """
    num_before = before[0] * before[1]
    places = torch.full((2 * size[0], 2 * size[1]), num_before)  # the last is a token of zeros
    places[: before[0], : before[1]] = Permutation.of(order_before).inverse.view(before)
    rows, columns = 2 * (order // size[1]), 2 * (order % size[1])
    four = [places[rows + down, columns + across] for across in (0, 1) for down in (0, 1)]
    index = torch.stack(four, dim=1).flatten()
    if len(index) == num_before:
        return Permutation.of(index)
    return PaddedOrder.of(index, num_before)

"""Layouts of the visible part of masked images.

A super-patch is what one token of the last stage stands for, as many pixels wide as the encoder's
total stride. Masks are made of whole super-patches, so what is masked can be left out of every
stage. The tokens of a super-patch lie on a Z-curve whose fours are timm's order of patch merging,
so merging is a view. Tokens attend within (window, region of the cyclic shift), as ever; the groups
of all images are packed into bins, each as large as a window.

The host assigns groups to bins (`bin_visible`), with tables of the geometry alone and in time that
hardly grows with the batch; the device computes everything of the size of the tokens (`layouts`).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_swin.encoders.visible import visible_cells
from ssl_swin.encoders.windows.binning import pack_groups
from ssl_swin.encoders.windows.layout import (
    EXCLUDED,
    BinnedWindows,
    SameOrder,
    StageLayout,
    WholeImages,
    WindowLayout,
)

_ROUNDING = 32  # the number of bins is rounded up by at most one in this many: fewer shapes


class Binning(NamedTuple):
    """Which super-patches are visible, and where their groups lie; made on the host.

    P is 1 if all images of the batch share a mask, else their number.

    Attributes:
        visible: Super-patches in ascending order, int64 (P, V).
        starts: First slot of each group, int64 (P, K), by layer type.
        num_bins: Number of bins, by layer type.
    """

    visible: Tensor
    starts: tuple[Tensor, ...]
    num_bins: tuple[int, ...]

    def to(self, device: torch.device) -> "Binning":
        """Returns a copy on a device."""
        starts = tuple(start.to(device, non_blocking=True) for start in self.starts)
        return Binning(self.visible.to(device, non_blocking=True), starts, self.num_bins)


class _LayerType(NamedTuple):
    """All attention layers of one stage and shift: U super-patches of n * n tokens, K groups.

    Attributes:
        group: Group of each token, int64 (U, n * n).
        rank: Place of each token among those of its super-patch and group, int64 (U, n * n).
        place: Place of each token in its window, int64 (U, n * n).
        counts: Tokens that a super-patch adds to a group, int64 (U, K).
        area: Tokens of a window.
        is_whole: Whether one window holds the map, so that a group is an image.
    """

    group: Tensor
    rank: Tensor
    place: Tensor
    counts: Tensor
    area: int
    is_whole: bool

    def to(self, device: torch.device) -> "_LayerType":
        return self._replace(
            group=self.group.to(device),
            rank=self.rank.to(device),
            place=self.place.to(device),
            counts=self.counts.to(device),
        )


class VisibleWindows:
    """The geometry of one encoder's windows, and layouts for masks.

    Attributes:
        grid: Rows and columns of super-patches.
        bin_multiple: Numbers of bins are multiples of it; what is too many stays empty.
    """

    bin_multiple = 1

    def __init__(self, model: Any) -> None:
        """Builds the tables; model is a timm Swin, V1 or V2."""
        stages = list(model.layers)
        self.grid: tuple[int, int] = tuple(stages[-1].blocks[0].input_resolution)
        self._types: list[_LayerType] = []
        self._types_of_stages: list[list[int]] = []
        for depth, stage in enumerate(stages):
            side = 1 << (len(stages) - 1 - depth)  # tokens of a super-patch
            known: dict[tuple[int, ...], int] = {}
            for block in stage.blocks:
                if block.shift_size not in known:
                    known[block.shift_size] = len(self._types)
                    self._types.append(_layer_type(block, self.grid, side))
            self._types_of_stages.append([known[block.shift_size] for block in stage.blocks])
        rows, columns = _token_coordinates(self.grid, 1 << (len(stages) - 1))
        self._patches = rows * stages[0].blocks[0].input_resolution[1] + columns
        self._on_device: dict[torch.device, tuple[Tensor, list[_LayerType]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out copies on devices, which a loader's process has no use for."""
        return self.__dict__ | {"_on_device": {}}

    def bin_visible(self, mask: Tensor) -> Binning:
        """Assigns the groups of a batch's visible tokens to bins.

        Args:
            mask: Bool (B, rows, columns), True = masked, of whole super-patches.

        Raises:
            UserError: If images differ in how much they show, or a mask cuts super-patches.
        """
        visible = visible_cells(mask.cpu(), self.grid)
        shown = torch.zeros(len(visible), self.grid[0] * self.grid[1], dtype=torch.int64)
        shown.scatter_(1, visible, 1)
        starts, num_bins = [], []
        for layer_type in self._types:
            sizes = shown @ layer_type.counts
            if layer_type.is_whole:
                first, bins = torch.arange(len(visible))[:, None] * sizes[0], len(visible)
            else:
                packed, bins = pack_groups(sizes.flatten().numpy(), layer_type.area)
                first = torch.from_numpy(packed).view_as(sizes)
                step = max(1, int(sizes.sum()) // layer_type.area // _ROUNDING)
                bins = _rounded_up(_rounded_up(bins, step), self.bin_multiple)
            starts.append(first)
            num_bins.append(bins)
        return Binning(visible, tuple(starts), tuple(num_bins))

    def layouts(self, binning: Binning) -> tuple[Tensor, list[StageLayout]]:
        """Lays out visible tokens, on the binning's device.

        Returns:
            The patches of visible tokens, raster indices int64 (P, N), and a layout per stage.
        """
        patches, types = self._tables(binning.visible.device)
        layouts = [
            _layout(layer_type, binning.visible, starts, bins)
            for layer_type, starts, bins in zip(
                types, binning.starts, binning.num_bins, strict=True
            )
        ]
        stages = [
            StageLayout(SameOrder(), tuple(layouts[number] for number in blocks))
            for blocks in self._types_of_stages
        ]
        return patches[binning.visible].flatten(1), stages

    def _tables(self, device: torch.device) -> tuple[Tensor, list[_LayerType]]:
        if device not in self._on_device:
            with torch.inference_mode(False):
                types = [layer_type.to(device) for layer_type in self._types]
                self._on_device[device] = self._patches.to(device), types
        return self._on_device[device]


def _rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _token_coordinates(grid: tuple[int, int], side: int) -> tuple[Tensor, Tensor]:
    """Returns rows and columns, each (U, n * n), of every super-patch's tokens on its Z-curve."""
    step = torch.arange(side * side)
    down, across = torch.zeros_like(step), torch.zeros_like(step)
    for bit in range(side.bit_length() - 1):
        down |= ((step >> (2 * bit)) & 1) << bit
        across |= ((step >> (2 * bit + 1)) & 1) << bit
    super_patches = torch.arange(grid[0] * grid[1])[:, None]
    return super_patches // grid[1] * side + down, super_patches % grid[1] * side + across


def _layer_type(block: Any, grid: tuple[int, int], side: int) -> _LayerType:
    (height, width), (high, wide) = block.input_resolution, block.window_size
    down, across = block.shift_size
    rows, columns = _token_coordinates(grid, side)
    rolled_rows, rolled_columns = (rows - down) % height, (columns - across) % width
    window = rolled_rows // high * (width // wide) + rolled_columns // wide
    # A window that wraps around holds up to four regions, which do not see each other.
    region = 2 * (rolled_rows >= height - down) + (rolled_columns >= width - across)
    _, group = torch.unique(4 * window + region, return_inverse=True)
    counts = torch.zeros(len(group), int(group.max()) + 1, dtype=torch.int64)
    counts.scatter_add_(1, group, torch.ones_like(group))
    same = group[:, :, None] == group[:, None, :]
    return _LayerType(
        group,
        same.tril(-1).sum(-1),
        rolled_rows % high * wide + rolled_columns % wide,
        counts,
        high * wide,
        (high, wide) == (height, width),
    )


def _layout(layer_type: _LayerType, visible: Tensor, starts: Tensor, num_bins: int) -> WindowLayout:
    place = layer_type.place[visible]  # (P, V, n * n)
    if layer_type.is_whole:
        return WholeImages(_one_hot(place.flatten(1), layer_type.area))
    slots = _slots(layer_type, visible, starts).flatten()
    images = torch.arange(len(visible), device=visible.device)[:, None, None]
    group = layer_type.group[visible] + images * starts.shape[1]

    def in_slots(values: Tensor, empty: int) -> Tensor:
        spread = values.new_full((num_bins * layer_type.area,), empty)
        return spread.scatter(0, slots, values.flatten()).view(num_bins, layer_type.area)

    index = in_slots(torch.arange(len(slots), device=slots.device), 0)
    place, group = in_slots(place, 0), in_slots(group, -1)
    is_apart = (group[:, :, None] != group[:, None])[:, None]
    return BinnedWindows(
        index,
        slots,
        (group >= 0)[..., None],
        _one_hot(place, layer_type.area),
        torch.zeros(is_apart.shape, device=is_apart.device).masked_fill(is_apart, EXCLUDED),
    )


def _one_hot(place: Tensor, area: int) -> Tensor:
    """As `torch.nn.functional.one_hot`, without its look at the values, which waits for a GPU."""
    return (place[..., None] == torch.arange(area, device=place.device)).float()


def _slots(layer_type: _LayerType, visible: Tensor, starts: Tensor) -> Tensor:
    """Returns the slot of every visible token, (P, V, n * n)."""
    counts, device = layer_type.counts, visible.device
    shown = torch.zeros(len(visible), len(counts), 1, dtype=torch.int64, device=device)
    added = shown.scatter(1, visible[..., None], 1) * counts  # (P, U, K)
    first = starts[:, None] + added.cumsum(1) - added  # of a super-patch's tokens of a group
    images = torch.arange(len(visible), device=device)[:, None, None]
    group = layer_type.group[visible]
    return first[images, visible[..., None], group] + layer_type.rank[visible]

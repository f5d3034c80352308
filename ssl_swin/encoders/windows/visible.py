"""Layouts of the visible part of masked images.

A cell is one token of the last stage, as many pixels wide as the encoder's total stride. Masks are
made of whole cells, so what is masked can be left out of every stage. The tokens of a cell lie on a
Z-curve whose fours are timm's order of patch merging, so merging is a view. Tokens attend within
(window, region of the cyclic shift), as ever; the groups of all images are packed into bins, each
as large as a window.

The host packs (`pack`), with tables of the geometry alone and in time that hardly grows with the
batch; the device works out everything of the size of the tokens (`layouts`).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_swin.encoders.windows.binning import pack_groups
from ssl_swin.encoders.windows.layout import Packing, StageLayout, WindowLayout
from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask

HIDDEN = -1e4  # added to scores between groups; exp of it is 0 in every float type
_ROUNDING = 32  # the number of bins is rounded up by at most one in this many: fewer shapes


class _LayerKind(NamedTuple):
    """All attention layers of one stage and shift: U cells of n * n tokens, K groups."""

    group: Tensor  # int64 (U, n * n), of each token
    rank: Tensor  # int64 (U, n * n), among its cell's tokens of the same group
    place: Tensor  # int64 (U, n * n), in its window
    counts: Tensor  # int64 (U, K), tokens that a cell adds to a group
    area: int  # of a window
    whole: bool  # one window holds the map: a group is an image

    def to(self, device: torch.device) -> "_LayerKind":
        return _LayerKind(
            *(part.to(device) if isinstance(part, Tensor) else part for part in self)  # type: ignore[arg-type]
        )


class VisibleWindows:
    """The geometry of one encoder's windows, and layouts for masks."""

    def __init__(self, model: Any) -> None:
        """Builds the tables; model is a timm Swin, V1 or V2."""
        stages = list(model.layers)
        self.grid: tuple[int, int] = tuple(stages[-1].blocks[0].input_resolution)
        self._kinds: list[_LayerKind] = []
        self._kind_of_block: list[list[int]] = []
        for depth, stage in enumerate(stages):
            side = 1 << (len(stages) - 1 - depth)  # tokens of a cell
            known: dict[tuple[int, ...], int] = {}
            for block in stage.blocks:
                if block.shift_size not in known:
                    known[block.shift_size] = len(self._kinds)
                    self._kinds.append(_layer_kind(block, self.grid, side))
            self._kind_of_block.append([known[block.shift_size] for block in stage.blocks])
        rows, columns = _token_coordinates(self.grid, 1 << (len(stages) - 1))
        self._patches = rows * stages[0].blocks[0].input_resolution[1] + columns
        self._on_device: dict[torch.device, tuple[Tensor, list[_LayerKind]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out copies on devices, which a loader's process has no use for."""
        return self.__dict__ | {"_on_device": {}}

    def pack(self, mask: Tensor) -> Packing:
        """Packs the visible tokens of a batch.

        Args:
            mask: Bool (B, rows, columns), True = masked, of whole cells.

        Raises:
            UserError: If images differ in how much they show, or a mask cuts cells.
        """
        visible = _visible_cells(mask.cpu(), self.grid)
        shown = torch.zeros(len(visible), self.grid[0] * self.grid[1], dtype=torch.int64)
        shown.scatter_(1, visible, 1)
        starts, num_bins = [], []
        for kind in self._kinds:
            sizes = shown @ kind.counts
            if kind.whole:
                first, bins = torch.arange(len(visible))[:, None] * sizes[0], len(visible)
            else:
                packed, bins = pack_groups(sizes.flatten().numpy(), kind.area)
                first = torch.from_numpy(packed).view_as(sizes)
                step = max(1, int(sizes.sum()) // kind.area // _ROUNDING)
                bins = -(-bins // step) * step
            starts.append(first)
            num_bins.append(bins)
        return Packing(visible, tuple(starts), tuple(num_bins))

    def layouts(self, packing: Packing) -> tuple[Tensor, list[StageLayout]]:
        """Lays out visible tokens, on the packing's device.

        Returns:
            The patches of visible tokens, raster indices int64 (P, N), and a layout per stage.
        """
        patches, kinds = self._tables(packing.visible.device)
        laid = [
            _layout(kind, packing.visible, starts, bins)
            for kind, starts, bins in zip(kinds, packing.starts, packing.num_bins, strict=True)
        ]
        stages = [
            StageLayout(None, None, tuple(laid[kind] for kind in blocks))
            for blocks in self._kind_of_block
        ]
        return patches[packing.visible].flatten(1), stages

    def _tables(self, device: torch.device) -> tuple[Tensor, list[_LayerKind]]:
        if device not in self._on_device:
            with torch.inference_mode(False):
                kinds = [kind.to(device) for kind in self._kinds]
                self._on_device[device] = self._patches.to(device), kinds
        return self._on_device[device]


def _visible_cells(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Gives the visible cells (P, V), with one row if all images share them."""
    if any(cells % units for cells, units in zip(grid, mask.shape[1:], strict=True)):
        raise UserError(
            f"a mask of {mask.shape[1]}x{mask.shape[2]} units cuts the encoder's last map of "
            f"{grid[0]}x{grid[1]}: its units must be as large as the encoder's total stride, or a "
            "multiple of it"
        )
    shown = ~expand_mask(mask, grid).flatten(1)
    counts = shown.sum(1)
    if counts.min() != counts.max() or counts[0] == 0:
        raise UserError(
            "every image of a batch must show the same number of cells, at least one; "
            f"got {int(counts.min())} to {int(counts.max())}"
        )
    if bool((shown == shown[:1]).all()):
        shown = shown[:1]
    return shown.nonzero()[:, 1].view(len(shown), -1)


def _token_coordinates(grid: tuple[int, int], side: int) -> tuple[Tensor, Tensor]:
    """Rows and columns, each (U, n * n), of the tokens of every cell, along its Z-curve."""
    step = torch.arange(side * side)
    down, across = torch.zeros_like(step), torch.zeros_like(step)
    for bit in range(side.bit_length() - 1):
        down |= ((step >> (2 * bit)) & 1) << bit
        across |= ((step >> (2 * bit + 1)) & 1) << bit
    cells = torch.arange(grid[0] * grid[1])[:, None]
    return cells // grid[1] * side + down, cells % grid[1] * side + across


def _layer_kind(block: Any, grid: tuple[int, int], side: int) -> _LayerKind:
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
    return _LayerKind(
        group,
        same.tril(-1).sum(-1),
        rolled_rows % high * wide + rolled_columns % wide,
        counts,
        high * wide,
        (high, wide) == (height, width),
    )


def _layout(kind: _LayerKind, visible: Tensor, starts: Tensor, num_bins: int) -> WindowLayout:
    place = kind.place[visible]  # (P, V, n * n)
    if kind.whole:
        return WindowLayout(None, None, None, _one_hot(place.flatten(1), kind.area), None)
    slots = _slots(kind, visible, starts).flatten()
    images = torch.arange(len(visible), device=visible.device)[:, None, None]
    group = kind.group[visible] + images * starts.shape[1]

    def in_slots(values: Tensor, empty: int) -> Tensor:
        spread = values.new_full((num_bins * kind.area,), empty)
        return spread.scatter(0, slots, values.flatten()).view(num_bins, kind.area)

    take = in_slots(torch.arange(len(slots), device=slots.device), 0)
    place, group = in_slots(place, 0), in_slots(group, -1)
    apart = (group[:, :, None] != group[:, None])[:, None]
    return WindowLayout(
        take.flatten(),
        slots,
        (group >= 0).view(-1, 1),
        _one_hot(place, kind.area),
        torch.zeros(apart.shape, device=apart.device).masked_fill(apart, HIDDEN),
    )


def _one_hot(place: Tensor, area: int) -> Tensor:
    """As `torch.nn.functional.one_hot`, without its look at the values, which waits for a GPU."""
    return (place[..., None] == torch.arange(area, device=place.device)).float()


def _slots(kind: _LayerKind, visible: Tensor, starts: Tensor) -> Tensor:
    """Gives the slot of every visible token, (P, V, n * n)."""
    shown = torch.zeros(len(visible), len(kind.counts), 1, dtype=torch.int64, device=visible.device)
    added = shown.scatter(1, visible[..., None], 1) * kind.counts  # (P, U, K)
    first = starts[:, None] + added.cumsum(1) - added  # of a cell's tokens of a group
    images = torch.arange(len(visible), device=visible.device)[:, None, None]
    return first[images, visible[..., None], kind.group[visible]] + kind.rank[visible]

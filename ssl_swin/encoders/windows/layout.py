"""Where tokens sit in the groups that attend to each other, and moving them there.

Tokens are (B, N, C) in an order of their own; slots are (B', G * S, C): G groups of S slots, in
which every query sees every key that `hidden` does not hide. A token fills one slot of a layout.
All moves are gathers, in the backward pass too: no atomic additions, the same bits every time.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class WindowLayout(NamedTuple):
    """Where the tokens of one attention layer sit."""

    take: Tensor | None  # int64 (G * S,), the token of each slot; None: tokens already sit so
    put: Tensor | None  # int64 (N,), the slot of each token
    filled: Tensor | None  # bool (G * S, 1), False where a slot repeats a token; None: all filled
    places: Tensor | None  # float (G, S, area), each slot's place in its window, one-hot; None: all
    hidden: Tensor | None  # float (G, 1, S, S), added to scores: 0, or below what any score reaches

    def to(self, device: torch.device) -> "WindowLayout":
        """Gives a copy on a device."""
        return WindowLayout(*(part if part is None else part.to(device) for part in self))


class StageLayout(NamedTuple):
    """Where the tokens of one stage sit."""

    merge: Tensor | None  # int64 (4 * N,), tokens of the stage before, a token's four in a row
    unmerge: Tensor | None  # int64, the inverse; None for both where the tokens already sit so
    blocks: tuple[WindowLayout, ...]  # one per block

    def to(self, device: torch.device) -> "StageLayout":
        """Gives a copy on a device; blocks that share a layout go on sharing it."""
        moved = {id(layout): layout.to(device) for layout in self.blocks}
        merge = None if self.merge is None else self.merge.to(device)
        unmerge = None if self.unmerge is None else self.unmerge.to(device)
        return StageLayout(merge, unmerge, tuple(moved[id(layout)] for layout in self.blocks))


class Packing(NamedTuple):
    """Which cells are visible, and where their groups lie; made on the host.

    P is 1 if all images of the batch share a mask, else their number.
    """

    visible: Tensor  # int64 (P, V), cells in ascending order
    starts: tuple[Tensor, ...]  # int64 (P, K) of each layer kind: first slot of each group
    num_bins: tuple[int, ...]

    def to(self, device: torch.device) -> "Packing":
        """Gives a copy on a device."""
        starts = tuple(start.to(device, non_blocking=True) for start in self.starts)
        return Packing(self.visible.to(device, non_blocking=True), starts, self.num_bins)


def to_slots(tokens: Tensor, layout: WindowLayout) -> Tensor:
    """Moves tokens (B, N, C) into slots (B, G * S, C); what repeats in a slot gets no gradient."""
    if layout.take is None:
        return tokens
    slots: Tensor = _Gather.apply(tokens, layout.take, layout.put, None)
    return slots


def from_slots(slots: Tensor, layout: WindowLayout) -> Tensor:
    """Moves slots (B, G * S, C) back to tokens (B, N, C)."""
    if layout.put is None:
        return slots
    tokens: Tensor = _Gather.apply(slots, layout.put, layout.take, layout.filled)
    return tokens


def reorder(tokens: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """Gives tokens (B, N, C) in another order; `inverse` undoes `order`, both int64 (N,)."""
    reordered: Tensor = _Gather.apply(tokens, order, inverse, None)
    return reordered


def take_rows(tokens: Tensor, index: Tensor) -> Tensor:
    """Gives each image's own rows (B, M, C) of tokens (B, N, C); index is int64 (B, M)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


class _Gather(torch.autograd.Function):
    """Rows by index, with a gather as its backward pass.

    `source` says which output row holds each input row; input rows that none holds are not `used`.
    """

    @staticmethod
    def forward(rows: Tensor, index: Tensor, source: Tensor, used: Tensor | None) -> Tensor:
        return _rows(rows, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, source, used = inputs
        ctx.save_for_backward(source, used)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        source, used = ctx.saved_tensors
        grad = _rows(grads[0], source)
        if used is not None:
            grad = grad * used
        return grad, None, None, None


def _rows(tokens: Tensor, index: Tensor) -> Tensor:
    """`tokens[:, index]`, as one gather of whole rows: many times faster on a CPU."""
    images, count, dim = tokens.shape
    first = torch.arange(0, images * count, count, device=index.device)
    flat = (first[:, None] + index).flatten()
    return tokens.reshape(-1, dim).index_select(0, flat).view(images, -1, dim)

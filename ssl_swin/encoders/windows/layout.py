"""Where tokens sit in the groups that attend to each other, and moving them there.

Tokens are (B, N, C) in an order of their own. Attention takes groups (B', G, S, C): G groups of S
slots, in which every query attends to every key that the layout's bias does not exclude. A token
fills one slot of a layout. All moves are gathers, in the backward pass too: no atomic additions,
the same bits every time.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]  # of a score and its indices
EXCLUDED = -1e4  # added to scores between groups; exp of it is 0 in every float type


class Order(ABC):
    """Another order of tokens, and the way back."""

    @abstractmethod
    def apply(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, C) in this order, (B, M, C)."""

    @abstractmethod
    def undo(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, M, C) in the order that they had before, (B, N, C)."""

    @abstractmethod
    def to(self, device: torch.device) -> "Order":
        """Returns a copy on a device."""


@dataclass(frozen=True)
class SameOrder(Order):
    """The order that the tokens have already."""

    def apply(self, tokens: Tensor) -> Tensor:
        """Returns the tokens themselves."""
        return tokens

    def undo(self, tokens: Tensor) -> Tensor:
        """Returns the tokens themselves."""
        return tokens

    def to(self, device: torch.device) -> "SameOrder":
        """Returns itself."""
        return self


@dataclass(frozen=True, eq=False)
class Permutation(Order):
    """The same tokens in another order.

    Attributes:
        index: Place before of each token, int64 (N,).
        inverse: Place after of each token, int64 (N,).
    """

    index: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, index: Tensor) -> "Permutation":
        """Returns the permutation of an index, int64 (N,)."""
        inverse = torch.empty_like(index)
        inverse[index] = torch.arange(len(index), device=index.device)
        return cls(index, inverse)

    def apply(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, C) in the new order."""
        return gather(tokens, self.index, self.inverse)

    def undo(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, C) in the old order."""
        return gather(tokens, self.inverse, self.index)

    def to(self, device: torch.device) -> "Permutation":
        """Returns a copy on a device."""
        return Permutation(self.index.to(device), self.inverse.to(device))


@dataclass(frozen=True, eq=False)
class PaddedOrder(Order):
    """Tokens in another order with zeros between them.

    Attributes:
        index: Place before of each slot, int64 (M,); N for a slot of zeros.
        inverse: Slot of each token, int64 (N + 1,); the last one stands for the zeros.
    """

    index: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, index: Tensor, num_tokens: int) -> "PaddedOrder":
        """Returns the order of an index, int64 (M,), over a number of tokens that it all holds."""
        inverse = index.new_zeros(num_tokens + 1)
        inverse[index] = torch.arange(len(index), device=index.device)
        return cls(index, inverse)

    def apply(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, C) in their slots, (B, M, C), and zeros in the others."""
        return gather(F.pad(tokens, (0, 0, 0, 1)), self.index, self.inverse)

    def undo(self, tokens: Tensor) -> Tensor:
        """Returns the tokens (B, N, C) of slots (B, M, C), without what the zeros became."""
        return gather(tokens, self.inverse, self.index)[:, :-1]

    def to(self, device: torch.device) -> "PaddedOrder":
        """Returns a copy on a device."""
        return PaddedOrder(self.index.to(device), self.inverse.to(device))


class WindowLayout(ABC):
    """Where the tokens of one attention layer sit."""

    @abstractmethod
    def gather(self, tokens: Tensor) -> Tensor:
        """Returns tokens (B, N, C) in their groups, (B', G, S, C)."""

    @abstractmethod
    def scatter(self, groups: Tensor, tokens: Tensor) -> Tensor:
        """Moves groups back to where the tokens were.

        Args:
            groups: (B', G, S, C).
            tokens: What `gather` was given, (B, N, C); only its shape matters.

        Returns:
            (B, N, C).
        """

    @abstractmethod
    def bias(self, window: Tensor) -> Tensor:
        """Returns what is added to the scores, (G or 1, heads, S, S).

        Args:
            window: Position bias of a whole window, (area, heads, area).
        """

    @abstractmethod
    def score_mod(self, window: Tensor) -> ScoreMod:
        """Returns the function that adds what `bias` has to a score, for FlexAttention.

        Its batch are the groups (B' * G) of `gather`.

        Args:
            window: Position bias of a whole window, (area, heads, area).
        """

    def parts_with_varying_groups(self) -> tuple[Tensor, ...]:
        """Returns the tensors (G, ...) whose number of groups changes from step to step."""
        return ()


@dataclass(frozen=True)
class WholeWindows(WindowLayout):
    """Windows of `area` tokens, which lie one after another already."""

    area: int

    def gather(self, tokens: Tensor) -> Tensor:
        """Returns the tokens, cut into windows."""
        return tokens.reshape(len(tokens), -1, self.area, tokens.shape[-1])

    def scatter(self, groups: Tensor, tokens: Tensor) -> Tensor:
        """Returns the windows as one row of tokens."""
        return groups.view(tokens.shape)

    def bias(self, window: Tensor) -> Tensor:
        """Returns the position bias, (1, heads, area, area)."""
        return window.transpose(0, 1)[None]

    def score_mod(self, window: Tensor) -> ScoreMod:
        """See `WindowLayout.score_mod`."""
        return lambda score, group, head, query, key: score + window[query, head, key]


@dataclass(frozen=True, eq=False)
class MovedWindows(WindowLayout):
    """Windows whose tokens lie elsewhere: shifted ones, and those that are filled up with zeros.

    Attributes:
        order: Brings tokens into the windows, one window after another.
        attn_bias: Added to scores, float (G or 1, 1, area, area): keeps apart what a cyclic shift
            brought together.
    """

    order: Order
    attn_bias: Tensor

    def gather(self, tokens: Tensor) -> Tensor:
        """Returns the tokens of every window."""
        area = self.attn_bias.shape[-1]
        return self.order.apply(tokens).view(len(tokens), -1, area, tokens.shape[-1])

    def scatter(self, groups: Tensor, tokens: Tensor) -> Tensor:
        """Returns the tokens where they were."""
        return self.order.undo(groups.flatten(1, 2))

    def bias(self, window: Tensor) -> Tensor:
        """Returns the position bias of every window and what keeps its regions apart."""
        return window.transpose(0, 1)[None] + self.attn_bias.to(window.dtype)

    def score_mod(self, window: Tensor) -> ScoreMod:
        """See `WindowLayout.score_mod`."""
        apart = self.attn_bias[:, 0].to(window.dtype)

        def add(score: Tensor, group: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return score + window[query, head, key] + apart[group % len(apart), query, key]

        return add

    def to(self, device: torch.device) -> "MovedWindows":
        """Returns a copy on a device."""
        return MovedWindows(self.order.to(device), self.attn_bias.to(device))


@dataclass(frozen=True, eq=False)
class BinnedWindows(WindowLayout):
    """Visible tokens of windows that are not full; several such groups share a bin.

    The tokens of P images, or of all images that share one mask, are binned together.

    Attributes:
        index: Token of each slot, int64 (G, area); any token where a slot is empty.
        slots: Slot of each token, int64 (P * N,).
        slot_mask: Bool (G, area, 1), False where a slot is empty.
        places: Float (G, area, area), place in its window of each slot's token, one-hot.
        attn_bias: Added to scores, float (G, 1, area, area): keeps the groups of a bin apart.
    """

    index: Tensor
    slots: Tensor
    slot_mask: Tensor
    places: Tensor
    attn_bias: Tensor

    def gather(self, tokens: Tensor) -> Tensor:
        """Returns the tokens of every bin; what repeats in an empty slot gets no gradient."""
        rows = tokens.reshape(-1, len(self.slots), tokens.shape[-1])
        binned = gather(rows, self.index.flatten(), self.slots)
        return binned.view(len(rows), *self.index.shape, -1)

    def scatter(self, groups: Tensor, tokens: Tensor) -> Tensor:
        """Returns the tokens where they were."""
        index, mask = self.index.flatten(), self.slot_mask.view(-1, 1)
        return gather(groups.flatten(1, 2), self.slots, index, mask).view(tokens.shape)

    def bias(self, window: Tensor) -> Tensor:
        """Returns the position bias between the tokens of every bin."""
        return bias_of_places(window, self.places) + self.attn_bias.to(window.dtype)

    def score_mod(self, window: Tensor) -> ScoreMod:
        """See `WindowLayout.score_mod`."""
        apart, add_bias = self.attn_bias[:, 0].to(window.dtype), bias_looked_up(window, self.places)

        def add(score: Tensor, group: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            biased = add_bias(score, group, head, query, key)
            return biased + apart[group % len(apart), query, key]

        return add

    def parts_with_varying_groups(self) -> tuple[Tensor, ...]:
        """Returns all tensors that are led by the number of bins."""
        return self.index, self.slot_mask, self.places, self.attn_bias


@dataclass(frozen=True, eq=False)
class WholeImages(WindowLayout):
    """Visible tokens where one window holds the whole map: every image is a group.

    Attributes:
        places: Float (P, N, area), place in its window of each token, one-hot.
    """

    places: Tensor

    def gather(self, tokens: Tensor) -> Tensor:
        """Returns the tokens (B, N, C) as the groups (B / P, P, N, C)."""
        return tokens.reshape(-1, len(self.places), *tokens.shape[1:])

    def scatter(self, groups: Tensor, tokens: Tensor) -> Tensor:
        """Returns the groups as images."""
        return groups.view(tokens.shape)

    def bias(self, window: Tensor) -> Tensor:
        """Returns the position bias between the tokens of every image."""
        return bias_of_places(window, self.places)

    def score_mod(self, window: Tensor) -> ScoreMod:
        """See `WindowLayout.score_mod`."""
        return bias_looked_up(window, self.places)


@dataclass(frozen=True, eq=False)
class StageLayout:
    """Where the tokens of one stage sit.

    Attributes:
        merging: Brings the tokens of the stage before into rows of four that are merged into one.
        blocks: One layout per block.
        is_recurring: False if other passes bring other sizes, which are not worth compiling for.
    """

    merging: Order
    blocks: tuple[WindowLayout, ...]
    is_recurring: bool = True


def bias_of_places(window: Tensor, places: Tensor) -> Tensor:
    """Returns the position bias between tokens that fill some places of a window.

    Chosen by products with one-hot rows: the gradient is then a product too, not millions of
    additions to one small table.

    Args:
        window: Position bias of a whole window, (area, heads, area).
        places: Float (G, S, area), one-hot.

    Returns:
        (G, heads, S, S).
    """
    places = places.to(window.dtype)
    groups, size, area = places.shape
    rows = (places.flatten(0, 1) @ window.flatten(1)).view(groups, -1, area)
    return (rows @ places.transpose(1, 2)).view(groups, size, -1, size).transpose(1, 2)


def bias_looked_up(window: Tensor, places: Tensor) -> ScoreMod:
    """Returns the function that adds what `bias_of_places` has to a score.

    Args:
        window: Position bias of a whole window, (area, heads, area).
        places: Float (G, S, area), one-hot.
    """
    place = places.argmax(-1)

    def add(score: Tensor, group: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = group % len(place)
        return score + window[place[row, query], head, place[row, key]]

    return add


def gather(rows: Tensor, index: Tensor, source: Tensor, used: Tensor | None = None) -> Tensor:
    """Returns rows by index, with a gather as its backward pass.

    Args:
        rows: (B, N, C).
        index: Row of each output, int64 (M,).
        source: Output that each row's gradient is taken from, int64 (N,).
        used: Bool (N, 1), False for rows that no output holds; None if there are none.

    Returns:
        (B, M, C).
    """
    gathered: Tensor = _Gather.apply(rows, index, source, used)
    return gathered


def take_rows(tokens: Tensor, index: Tensor) -> Tensor:
    """Returns each image's own rows (B, M, C) of tokens (B, N, C); index is int64 (B, M)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


class _Gather(torch.autograd.Function):
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

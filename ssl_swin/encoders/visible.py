"""What an encoder offers that can compute the visible part of masked images alone."""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask


class VisiblePlan(Protocol):
    """What an encoder works out of a batch's masks before the step; made on the host."""

    @property
    def visible(self) -> Tensor:
        """Cells of the last map that are visible, ascending, int64 (P, V).

        P is 1 if all images of the batch share a mask, else their number.
        """

    def to(self, device: torch.device) -> Self:
        """Return a copy on a device."""


class VisibleCells(NamedTuple):
    """A plan that is no more than the list of visible cells."""

    visible: Tensor  # int64 (P, V)

    def to(self, device: torch.device) -> "VisibleCells":
        """Return a copy on a device."""
        return VisibleCells(self.visible.to(device, non_blocking=True))


class VisibleEncoder(Encoder):
    """An encoder that can leave out masked patches: nothing of them is computed, or seen."""

    @property
    @abstractmethod
    def last_grid(self) -> tuple[int, int]:
        """Rows and columns of the last map, whose cells are visible or masked as a whole."""

    @abstractmethod
    def visible_planner(self) -> Callable[[Tensor], VisiblePlan]:
        """Return what turns masks (B, rows, columns), True = masked, into a plan.

        It is sent to the processes that load data, so it does not hold the model. It raises
        UserError if images differ in how much they show, or a mask cuts cells.

        Raises:
            UserError: If this encoder cannot leave patches out.
        """

    @abstractmethod
    def encode_visible(self, images: Tensor, plan: VisiblePlan) -> Tensor:
        """Encode visible cells.

        Args:
            images: Normalised (B, C, H, W).
            plan: What the planner made of the batch's masks, on the images' device.

        Returns:
            Features (B, V, num_features), in the order of `plan.visible`.
        """


def visible_cells(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """List the visible cells of a batch, int64 (P, V), ascending; P as in `VisiblePlan`.

    Args:
        mask: Bool (B, rows, columns), True = masked, of whole cells.
        grid: Rows and columns of cells.

    Raises:
        UserError: If images differ in how much they show, or a mask cuts cells.
    """
    if any(side % patches for side, patches in zip(grid, mask.shape[1:], strict=True)):
        raise UserError(
            f"a mask of {mask.shape[1]}x{mask.shape[2]} patches cuts the encoder's last map of "
            f"{grid[0]}x{grid[1]}: they must be as large as the encoder's total stride, or a "
            "multiple of it"
        )
    shown = ~expand_mask(mask, grid).flatten(1)
    counts = shown.sum(1)
    if counts.min() != counts.max() or counts[0] == 0:
        raise UserError(
            "every image of a batch must show the same number of patches of the last map, at least "
            f"one; got {int(counts.min())} to {int(counts.max())}"
        )
    if bool((shown == shown[:1]).all()):
        shown = shown[:1]
    return shown.nonzero()[:, 1].view(len(shown), -1)

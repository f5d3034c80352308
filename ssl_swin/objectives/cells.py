"""The cells of an encoder's last map: their pixels, and lists of masked and of visible ones.

Cell number `row * columns + column` of a map covers a square of pixels as long as the encoder's
total stride.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask


class MaskedCells(NamedTuple):
    """The masked cells of R images, one after the other."""

    places: Tensor  # int64 (M,), image * number of cells + cell, ascending
    weights: Tensor  # float32 (M,), 1 / masked cells of the same image


def masked_cells(mask: Tensor, grid: tuple[int, int]) -> MaskedCells:
    """List the masked cells of images.

    Args:
        mask: Bool (R, rows, columns), True = masked, of whole cells.
        grid: Rows and columns of cells.

    Raises:
        UserError: If the mask does not fit the grid.
    """
    masked = expand_mask(mask, grid).flatten(1)
    image, cell = masked.nonzero(as_tuple=True)
    weight = 1 / masked.sum(1).clamp(min=1)[image].float()
    return MaskedCells(image * masked.shape[1] + cell, weight)


def check_mask_patch(size_px: int, stride: int, objective: str) -> None:
    """Refuse mask patches that cut cells.

    Args:
        size_px: Side of a mask patch.
        stride: Side of a cell in pixels.
        objective: Which objective asks, as on the command line.

    Raises:
        UserError: With sizes that fit.
    """
    if size_px % stride:
        raise UserError(
            f"objective.mask_patch_size_px={size_px} does not fit objective={objective}: a mask "
            "patch must be as large as the encoder's total stride, or a multiple of it: "
            f"{stride}, {2 * stride}, ... px"
        )


def other_cells(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the cells of each image that are not listed, int64 (R, N - V), ascending.

    Args:
        cells: Different cells of each image, int64 (R, V).
        grid: Rows and columns of cells.
    """
    listed = torch.zeros(len(cells), grid[0] * grid[1], dtype=torch.uint8, device=cells.device)
    order = listed.scatter(1, cells, 1).argsort(dim=1, stable=True)
    return order[:, : order.shape[1] - cells.shape[1]]


def listed_cells(mask: Tensor, grid: tuple[int, int], number: int) -> Tensor:
    """List the masked cells of images that have equally many, int64 (R, number), ascending.

    No host waits for a GPU: a wrong number is found on the device, as a failed assertion.

    Args:
        mask: Bool (R, rows, columns), True = masked, of whole cells.
        grid: Rows and columns of cells.
        number: Masked cells of every image.

    Raises:
        UserError: If the mask does not fit the grid.
    """
    masked = expand_mask(mask, grid).flatten(1)
    torch._assert_async(
        (masked.sum(1) == number).all(), f"every image must have {number} masked cells"
    )
    return masked.byte().argsort(dim=1, descending=True, stable=True)[:, :number]


def over_channels(cells: Tensor, tokens: Tensor) -> Tensor:
    """Repeat indices of cells (R, V) for every channel of tokens (R, N, C): (R, V, C)."""
    return cells[..., None].expand(-1, -1, tokens.shape[-1])


def patchify(images: Tensor, side_px: int) -> Tensor:
    """Cut images (R, C, H, W) into the values of their cells, (R, N, side_px * side_px * C)."""
    rows, columns = (side // side_px for side in images.shape[-2:])
    patches = images.reshape(len(images), -1, rows, side_px, columns, side_px)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(len(images), rows * columns, -1)


def unpatchify(patches: Tensor, grid: tuple[int, int], channels: int) -> Tensor:
    """Undo `patchify`.

    Args:
        patches: (R, N, side_px * side_px * C).
        grid: Rows and columns of cells.
        channels: C.
    """
    rows, columns = grid
    side_px = round((patches.shape[-1] / channels) ** 0.5)
    pixels = patches.view(len(patches), rows, columns, side_px, side_px, channels)
    pixels = pixels.permute(0, 5, 1, 3, 2, 4)
    return pixels.reshape(len(patches), channels, rows * side_px, columns * side_px)

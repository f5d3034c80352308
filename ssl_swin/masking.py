"""Random masks of whole mask patches.

References: SimMIM (arXiv:2111.09886), random masking with a large masked patch size, an exact
count; BEiT (arXiv:2106.08254), algorithm 1, for masks of blocks.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ssl_swin.errors import UserError

_BLOCK_TRIES = 10
_LOG_ASPECT = math.log(1 / 0.3)  # of the sides of a block, one over the other


def mask_grid(
    img_size_px: tuple[int, int], mask_patch_size_px: int, *, patch_size_px: int
) -> tuple[int, int]:
    """Return the number of mask patches (rows, columns) that tile an image.

    Args:
        img_size_px: (height, width).
        mask_patch_size_px: Side of a mask patch.
        patch_size_px: Side of a patch, of which a mask patch holds a whole number.

    Raises:
        UserError: If the mask patch does not divide both sides, or cuts patches.
    """
    height_px, width_px = img_size_px
    common = math.gcd(height_px, width_px)
    fitting = [d for d in range(patch_size_px, common + 1, patch_size_px) if common % d == 0]
    if mask_patch_size_px not in fitting:
        raise UserError(
            f"a mask patch of {mask_patch_size_px} px does not tile an image of "
            f"{height_px}x{width_px} px in patches of {patch_size_px} px; mask patches that do: "
            f"{', '.join(map(str, fitting)) or 'none'} px"
        )
    return height_px // mask_patch_size_px, width_px // mask_patch_size_px


def num_masked_patches(num_patches: int, ratio: float) -> int:
    """Return the exact number of masked patches, `ceil(num_patches * ratio)`.

    The product is taken in floating point like the original's, so 100 patches at 0.55 give 56. At
    192 px, patches of 32 px and ratio 0.6 mask 22 of 36, a true ratio of 0.611.

    Raises:
        UserError: If the ratio is outside (0, 1), or leaves no patch visible.
    """
    if not 0.0 < ratio < 1.0:
        raise UserError(f"mask ratio must lie strictly between 0 and 1, got {ratio}")
    count = math.ceil(num_patches * ratio)
    if count == num_patches:
        largest = math.floor(10_000 * (num_patches - 1) / num_patches) / 10_000
        raise UserError(
            f"mask ratio {ratio} masks all {num_patches} patches; at most {largest} leaves one "
            "visible"
        )
    return count


def random_mask(
    grid: tuple[int, int],
    ratio: float,
    generator: np.random.Generator,
    *,
    batch_size: int,
    shared: bool = False,
) -> Tensor:
    """Draw masks of whole mask patches, an exact count per image, uniform over all choices.

    Args:
        grid: Mask patches per side (rows, columns); need not be square.
        ratio: Fraction of the mask patches to mask, in (0, 1); the count is rounded up.
        generator: Source of all randomness; the same state gives the same masks.
        batch_size: Number of images B.
        shared: Draw one mask and use it for the whole batch.

    Returns:
        Bool tensor (B, rows, columns) on the CPU, True = masked.

    Raises:
        UserError: If the ratio is out of range (see `num_masked_patches`).
    """
    rows, columns = grid
    count = num_masked_patches(rows * columns, ratio)
    draws = generator.random((1 if shared else batch_size, rows * columns))
    mask = np.zeros(draws.shape, dtype=bool)
    np.put_along_axis(mask, np.argsort(draws, axis=1, kind="stable")[:, :count], True, axis=1)
    return torch.from_numpy(mask).view(-1, rows, columns).expand(batch_size, -1, -1)


def block_mask(grid: tuple[int, int], ratio: float, generator: np.random.Generator) -> Tensor:
    """Draw a mask that is made of rectangles, which may overlap.

    Rectangles are added as long as one is found in ten tries that still fits the count, so that a
    few mask patches less than asked for may be masked.

    Args:
        grid: Mask patches per side (rows, columns).
        ratio: Largest fraction of the mask patches to mask, in (0, 1); the count is rounded up.
        generator: Source of all randomness.

    Returns:
        Bool tensor (rows, columns) on the CPU, True = masked.

    Raises:
        UserError: If the ratio is out of range (see `num_masked_patches`).
    """
    most = num_masked_patches(grid[0] * grid[1], ratio)
    mask = np.zeros(grid, dtype=bool)
    while (block := _new_block(mask, most - int(mask.sum()), generator)) is not None:
        mask[block] = True
    return torch.from_numpy(mask)


def _new_block(
    mask: np.ndarray, room: int, generator: np.random.Generator
) -> tuple[slice, slice] | None:
    """Return a rectangle that masks something and not more than there is room for, if found."""
    sides = np.array(mask.shape)
    largest = np.maximum(sides - 1, 1)
    smallest = min(room, int(sides.min() // 3) ** 2)
    for _ in range(_BLOCK_TRIES if room else 0):
        area = generator.uniform(smallest, room)
        aspect = math.exp(generator.uniform(-_LOG_ASPECT, _LOG_ASPECT))
        block = np.array([round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))])
        if (block < 1).any() or (block > largest).any():
            continue
        top, left = generator.integers(0, sides - block + 1)
        place = slice(top, top + block[0]), slice(left, left + block[1])
        if 0 < (~mask[place]).sum() <= room:
            return place
    return None


def expand_mask(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Repeat each mask patch to a finer grid (nearest neighbour).

    Args:
        mask: (B, rows, columns), any dtype.
        grid: Target (rows, columns), whole multiples of the mask's.

    Returns:
        (B, *grid), same dtype.

    Raises:
        UserError: If a mask patch would cover a fraction of a place of the finer grid.
    """
    rows, columns = mask.shape[-2:]
    if grid[0] % rows or grid[1] % columns:
        raise UserError(
            f"a mask of {rows}x{columns} patches does not fit a grid of {grid[0]}x{grid[1]}: "
            "each side of the grid must be a multiple of the mask's"
        )
    return mask.repeat_interleave(grid[0] // rows, -2).repeat_interleave(grid[1] // columns, -1)

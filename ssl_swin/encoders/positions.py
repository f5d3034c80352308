"""Positions of the cells of a map at a network's input: fixed ones, and any ones resized."""

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from ssl_swin.encoders.sizes import Size


def sine_cosine(rows: int, columns: int, dim: int) -> Tensor:
    """Return fixed positions (rows * columns, dim), as MAE (arXiv:2111.06377) adds them to tokens.

    A quarter each is the sine and the cosine of the column, and of the row. Wavelengths rise from
    2 pi to 10,000 times that, in patches.

    Args:
        rows: Of the map of patches.
        columns: Of the same.
        dim: Width, a multiple of 4.
    """
    frequencies = 10_000 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64),
        indexing="ij",
    )
    angles = [place.reshape(-1, 1) * frequencies for place in (column, row)]
    return torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1).float()


def resized_positions(
    positions: Tensor, source: Size, target: Size, *, num_tokens: int = 0
) -> Tensor:
    """Return positions for another map, by a bicubic spline, as timm resizes them.

    Args:
        positions: (1, num_tokens + rows * columns, C).
        source: Rows and columns that they are of.
        target: Rows and columns that are wanted.
        num_tokens: Positions at the beginning that are of no cell, as a class token's.
    """
    if source == target:
        return positions
    resized: Tensor = resample_abs_pos_embed(
        positions, list(target), list(source), num_prefix_tokens=num_tokens
    )
    return resized

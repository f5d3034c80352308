"""Fixed positions of the cells of a map, as MAE (arXiv:2111.06377) adds them to tokens."""

import torch
from torch import Tensor


def sine_cosine(rows: int, columns: int, dim: int) -> Tensor:
    """Return fixed positions (rows * columns, dim): a quarter each sin and cos of column and row.

    Wavelengths rise from 2 pi to 10,000 times that, in patches.

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

"""What feature maps see in images: cells that are alike get colours that are alike."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ssl_swin.figure import ColourColumn, Column, Figure, ImageColumn, SimilarityColumn

NUM_COLOURS = 3
BLACK, WHITE = 0.02, 0.98  # quantiles of a component that are drawn so
LEAST_SHARE = 1e-10  # of the variance, below which a component is rounding


def feature_figure(images: Tensor, maps: Sequence[Tensor], at: tuple[float, float]) -> Figure:
    """Describe a figure of the input, and of each stage's colours and likeness to one place.

    Args:
        images: Normalised, (B, C, H, W).
        maps: Of each stage, (B, C_i, H_i, W_i).
        at: Place in the image, as shares of height and width in [0, 1).
    """
    columns: list[Column] = [ImageColumn("input", images)]
    for stage, features in enumerate(maps, start=1):
        columns.append(ColourColumn(f"stage {stage}, PCA", principal_colours(features)))
        height, width = features.shape[-2:]
        row, column = int(at[0] * height), int(at[1] * width)
        similarity = similarity_to(features, (row, column))
        centre = ((row + 0.5) / height, (column + 0.5) / width)
        columns.append(SimilarityColumn(f"stage {stage}, like +", similarity, centre))
    return tuple(columns)


def principal_colours(features: Tensor) -> Tensor:
    """Draw the three principal components of the cells of all images as red, green and blue.

    Of each component, the channel that weighs most in it counts as positive, and the 2nd and 98th
    percentile over all cells become 0 and 1.

    Args:
        features: Maps (B, C, h, w).

    Returns:
        float32 (B, 3, h, w) in [0, 1], on the CPU. A component that there is not, or that does not
        vary, is 0.5.
    """
    batch, channels, height, width = features.shape
    cells = _centred(features).movedim(1, -1).reshape(-1, channels)
    shown = torch.full((len(cells), NUM_COLOURS), 0.5)
    for colour, scores in enumerate(_principal_scores(cells).T):
        low, high = np.quantile(scores.numpy(), [BLACK, WHITE])
        if high > low:
            shown[:, colour] = ((scores - low) / (high - low)).clamp(0, 1)
    return shown.reshape(batch, height, width, NUM_COLOURS).movedim(-1, 1)


def similarity_to(features: Tensor, cell: tuple[int, int]) -> Tensor:
    """Return the cosine similarity of each cell of an image to one of its cells.

    The mean of the cells of all images is subtracted before, which every cell has in common.

    Args:
        features: Maps (B, C, h, w).
        cell: Row and column of the one cell.

    Returns:
        float32 (B, h, w) in [-1, 1], on the CPU; 0 of cells that are the mean.
    """
    row, column = cell
    unit = functional.normalize(_centred(features), dim=1)
    return (unit * unit[:, :, row : row + 1, column : column + 1]).sum(dim=1).float()


def _centred(features: Tensor) -> Tensor:
    values = features.detach().cpu().double()
    return values - values.mean(dim=(0, 2, 3), keepdim=True)


def _principal_scores(cells: Tensor) -> Tensor:
    """Return centred cells (N, C) along those of the first components that vary, (N, up to 3)."""
    is_wide = cells.shape[0] < cells.shape[1]
    variances, vectors = torch.linalg.eigh(cells @ cells.T if is_wide else cells.T @ cells)
    first = variances.argsort(descending=True)[:NUM_COLOURS]
    first = first[variances[first] > LEAST_SHARE * variances.clamp(min=0).sum()]
    vectors = vectors[:, first]
    scores: Tensor = vectors * variances[first].sqrt() if is_wide else cells @ vectors
    loadings = cells.T @ scores
    heaviest = loadings.abs().argmax(dim=0, keepdim=True)
    signs: Tensor = loadings.gather(0, heaviest).sign()
    return scores * signs

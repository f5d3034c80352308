"""Nearest images by the cosine of their vectors, and a map of vectors in two dimensions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_swin.errors import UserError

Floats = NDArray[np.float32]
LEAST_LIKE = 0.98  # cosine of a kept vector and the same one computed again, in half too
_LEAST_NORM = 1e-12
_CHUNK = 65536  # vectors at a time, in double precision


class Neighbours(NamedTuple):
    """The nearest of one query, the nearest first."""

    rows: list[int]
    cosines: list[float]


def nearest(
    vectors: Floats, queries: Floats, num: int, own_rows: Sequence[int | None]
) -> list[Neighbours]:
    """Find the vectors of the largest cosine to each query.

    Args:
        vectors: (N, D).
        queries: (Q, D).
        num: How many of each, at most.
        own_rows: Q rows that are left out, where a query is one of the vectors.

    Returns:
        Of equal cosines, the first row comes first.

    Raises:
        UserError: If the widths differ, or no vector is left.
    """
    if queries.shape[1] != vectors.shape[1]:
        raise UserError(
            f"the vectors have {vectors.shape[1]} numbers, and those of the query "
            f"{queries.shape[1]}: give the backbone and the options that made them"
        )
    if len(vectors) < 2 and any(row is not None for row in own_rows):
        raise UserError("there is one image, and no other to compare it with")
    unit_vectors, asked = unit(vectors), unit(queries)
    found = []
    for query, own in zip(asked, own_rows, strict=True):
        cosines = unit_vectors @ query
        if own is not None:
            cosines[own] = -np.inf
        order = np.argsort(-cosines, kind="stable")[
            : min(num, len(unit_vectors) - (own is not None))
        ]
        found.append(Neighbours(order.tolist(), cosines[order].tolist()))
    return found


class Map(NamedTuple):
    """Vectors in two dimensions.

    Attributes:
        points: (N, 2), centred, along the directions of largest variance.
        shares: Of the whole variance, of each direction.
    """

    points: Floats
    shares: tuple[float, float]


def principal_map(vectors: Floats) -> Map:
    """Project vectors (N, D) on their first two principal components.

    The sign of a component is that which makes its largest entry positive.

    Raises:
        UserError: If there are fewer than three vectors, of two numbers each.
    """
    number, width = vectors.shape
    if number < 3 or width < 2:
        raise UserError(f"a map takes three images or more, of two numbers, got {number} x {width}")
    centre = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((width, width))
    for first in range(0, number, _CHUNK):
        part = vectors[first : first + _CHUNK] - centre
        covariance += part.T @ part / number
    values, directions = np.linalg.eigh(covariance)
    axes = directions[:, [-1, -2]]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    chunks = (vectors[first : first + _CHUNK] - centre for first in range(0, number, _CHUNK))
    points = np.concatenate([part @ axes for part in chunks]).astype(np.float32)
    whole = max(float(values.clip(min=0).sum()), _LEAST_NORM)
    return Map(points, (float(values[-1]) / whole, max(0.0, float(values[-2])) / whole))


def unit(vectors: Floats) -> Floats:
    """Return vectors (N, D) scaled to length 1."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Floats = (vectors / np.maximum(norms, _LEAST_NORM)).astype(np.float32)
    return scaled

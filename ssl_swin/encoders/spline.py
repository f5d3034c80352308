"""Values at evenly spaced offsets from values at geometrically spaced ones, by a cubic spline.

Reference: the change of the position bias's window in SimMIM's fine-tuning. The original calls
scipy's `interp2d`, gone since scipy 1.14; over a grid that is the product of two such splines.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def spline_matrix(source_window: int, target_window: int) -> Array:
    """Returns what turns values at the known offsets of one axis into those at the new ones."""
    known = geometric_offsets(source_window, target_window)
    wanted = np.arange(1 - target_window, target_window, dtype=np.float64)
    degree = min(3, len(known) - 1)  # three offsets carry no cubic
    knots = _knots(known, degree)
    inside = wanted.clip(known[0], known[-1])
    through_known = np.linalg.inv(_basis(known, knots, degree))
    matrix: Array = _basis(inside, knots, degree) @ through_known
    return matrix


def geometric_offsets(source_window: int, target_window: int) -> Array:
    """Places the offsets of the source window on the scale of the target's."""
    num_steps, reach = source_window - 1, target_window - 1
    low, high = 1.01, 1.5
    ratio = (low + high) / 2
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**num_steps) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    outwards = np.cumsum(ratio ** np.arange(num_steps))
    return np.concatenate([-outwards[::-1], [0.0], outwards])


def _knots(points: Array, degree: int) -> Array:
    """Knots of the interpolating spline: all points but the outermost two ("not a knot")."""
    first, last = np.repeat(points[[0, -1]], degree + 1).reshape(2, -1)
    return np.concatenate([first, points[2:-2], last])


def _basis(points: Array, knots: Array, degree: int) -> Array:
    """Values of the B-splines over the knots, (points, splines), by de Boor's recursion."""
    intervals = np.searchsorted(knots, points, side="right") - 1
    basis: Array = np.eye(len(knots) - 1)[intervals.clip(degree, len(knots) - degree - 2)]
    for order in range(1, degree + 1):
        width = knots[order:] - knots[:-order]
        rising = (points[:, None] - knots[:-order]) / np.where(width > 0, width, np.inf)
        basis = rising[:, :-1] * basis[:, :-1] + (1 - rising[:, 1:]) * basis[:, 1:]
    return basis

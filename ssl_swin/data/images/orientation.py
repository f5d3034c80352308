"""The orientation that EXIF or TIFF ask a picture to be shown in."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

UPRIGHT = 1
_TRANSPOSED = (5, 6, 7, 8)
_MIRRORED_ROWS = (3, 4, 7, 8)  # of the result, top to bottom
_MIRRORED_COLUMNS = (2, 3, 6, 7)
_INVERSE = {6: 8, 8: 6}  # the others undo themselves


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return (C, H, W) turned and mirrored as an orientation asks for, from 1 (upright) to 8."""
    if orientation in _TRANSPOSED:
        values = values.transpose(0, 2, 1)
    if orientation in _MIRRORED_ROWS:
        values = values[:, ::-1]
    if orientation in _MIRRORED_COLUMNS:
        values = values[:, :, ::-1]
    return np.ascontiguousarray(values) if orientation != UPRIGHT else values


def turned_back(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return what `turned` was applied to."""
    return turned(values, _INVERSE.get(orientation, orientation))


def known(orientation: Any) -> int:
    """Return an orientation as a number from 1 to 8; what is none of them means upright."""
    return orientation if orientation in range(1, 9) else UPRIGHT


def is_transposed(orientation: int) -> bool:
    """Return whether an orientation exchanges height and width."""
    return orientation in _TRANSPOSED

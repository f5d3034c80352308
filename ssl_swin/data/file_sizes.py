"""Sizes of image files, where asking for them is cheap."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MOST_ASKED = 100_000  # files whose sizes are asked for; on a network disk more would take minutes


def file_sizes(number: int, paths: Iterable[Path]) -> NDArray[np.int64] | None:
    """Return the bytes of each file, 0 for one that is not there; None of more than 100,000.

    Args:
        number: Number of files.
        paths: Of the files, in order.
    """
    if number > MOST_ASKED:
        return None
    return np.array([_size(path) for path in paths], np.int64)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # a list may name what is not there
        return 0

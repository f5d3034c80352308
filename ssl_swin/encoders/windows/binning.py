"""Bin packing: groups of visible tokens into bins of equal size, so that few slots stay empty.

Greedy by decreasing size, with all bins of the same filling made at once: the work goes with the
number of distinct fillings, a few dozen, and not with the number of groups.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def pack_groups(sizes: Ints, bin_size: int) -> tuple[Ints, int]:
    """Places groups in bins.

    Args:
        sizes: Tokens of each group (N,), from 0 to `bin_size`; empty groups take no place.
        bin_size: Slots of a bin.

    Returns:
        The first slot of each group (N,), counted over all bins, and the number of bins.
    """
    starts = np.zeros(len(sizes), np.int64)
    by_size = np.argsort(-sizes, kind="stable")
    values, first, left = np.unique(-sizes[by_size], return_index=True, return_counts=True)
    kinds = [[-int(v), int(f), int(n)] for v, f, n in zip(values, first, left, strict=True) if v]
    bins = 0
    for largest in range(len(kinds)):
        while kinds[largest][2]:
            filling = _filling(kinds, largest, bin_size)
            copies = min(kinds[kind][2] // count for kind, count in filling)
            bin_starts = (bins + np.arange(copies)) * bin_size
            offset = 0
            for kind, count in filling:
                size, at, _ = kinds[kind]
                members = by_size[at : at + copies * count].reshape(copies, count)
                starts[members] = bin_starts[:, None] + offset + np.arange(count) * size
                kinds[kind][1] += copies * count
                kinds[kind][2] -= copies * count
                offset += count * size
            bins += copies
    return starts, bins


def _filling(kinds: list[list[int]], largest: int, room: int) -> list[tuple[int, int]]:
    """Fills one bin greedily: (kind, count) from the largest kind that is left."""
    filling = []
    for kind in range(largest, len(kinds)):
        size, _, left = kinds[kind]
        count = min(left, room // size)
        if count:
            filling.append((kind, count))
            room -= count * size
    return filling

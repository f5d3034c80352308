"""Which images of a set hold the same bytes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]  # (images, 2): 16 bytes each, so that millions fit into memory


def repeated(digests: Digests) -> Iterator[tuple[int, int]]:
    """Find images with the digest of an earlier one.

    Args:
        digests: Hashes of the images' bytes; zero where one was not read, and is left out.

    Yields:
        In rising order: number of an image, and of the first one with its digest.
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal ones stay in rising order
    in_order = digests[order]
    is_repeated = np.zeros(len(order), dtype=bool)
    is_repeated[1:] = (in_order[1:] == in_order[:-1]).all(axis=1)
    first = np.maximum.accumulate(np.where(is_repeated, 0, np.arange(len(order))))
    is_repeated &= in_order.any(axis=1)
    images, earlier = order[is_repeated], order[first[is_repeated]]
    rising = np.argsort(images)
    yield from zip(images[rising].tolist(), earlier[rising].tolist(), strict=True)

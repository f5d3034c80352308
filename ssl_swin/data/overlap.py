"""Whether held-out images are among the training images, byte for byte."""

from typing import NamedTuple

import numpy as np

from ssl_swin.data.dataset import ImageDataset

MOST_LOOKED_AT = 32  # held-out images, spread over the split
MOST_READ_BYTES = 64 << 20  # of training images of the same size, which they are compared with


class Overlap(NamedTuple):
    """What was found."""

    num_found: int
    num_looked_at: int


def overlap(train: ImageDataset, held_out: ImageDataset) -> Overlap:
    """Look for some held-out images among the training images of the same size in bytes.

    Only what is cheap is done: where sizes are not known, or images are fetched from elsewhere,
    nothing is looked at. Images that cannot be read are passed over.

    Args:
        train: The training images.
        held_out: Images of another split.
    """
    if train.fetches_ahead or held_out.fetches_ahead or not len(held_out):
        return Overlap(0, 0)
    train_sizes, sizes = train.image_sizes(), held_out.image_sizes()
    if train_sizes is None or sizes is None:
        return Overlap(0, 0)
    number = min(MOST_LOOKED_AT, len(held_out))
    chosen = np.unique(np.linspace(0, len(held_out) - 1, number).round().astype(np.int64))
    found, most_each = 0, MOST_READ_BYTES // number
    for index in chosen.tolist():
        most = max(1, most_each // max(1, int(sizes[index])))
        alike = np.flatnonzero(train_sizes == sizes[index])[:most].tolist()
        image = _image(held_out, index) if alike else None
        found += image is not None and any(_image(train, each) == image for each in alike)
    return Overlap(found, len(chosen))


def _image(dataset: ImageDataset, index: int) -> bytes | None:
    try:
        return dataset[index].data
    except Exception:  # a damaged file may raise almost anything, and is told of elsewhere
        return None

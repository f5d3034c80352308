"""Parts of a training set held out for validation, always the same ones."""

import fnmatch
import math
from collections.abc import Sequence

import numpy as np

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.rng import keyed_permutation
from ssl_swin.data.sources.boxes.dataset import BoxDataset
from ssl_swin.data.sources.image_folder import FolderDataset
from ssl_swin.data.subset import Subset
from ssl_swin.errors import UserError


def hold_out(dataset: ImageDataset, val_ratio: float) -> dict[str, ImageDataset]:
    """Split a data set into train and val, always in the same way.

    Args:
        dataset: The data set to be split.
        val_ratio: Share of val in [0, 1], rounded up to whole samples.
    """
    order = keyed_permutation(len(dataset), "hold out")
    num_val = math.ceil(val_ratio * len(dataset))
    return {
        "train": Subset(dataset, np.sort(order[num_val:])),
        "val": Subset(dataset, np.sort(order[:num_val])),
    }


def hold_out_names(dataset: ImageDataset, patterns: Sequence[str]) -> dict[str, ImageDataset]:
    """Split a data set into train and val by the names of its samples.

    Args:
        dataset: The data set to be split.
        patterns: Names of val; `*` stands for any characters.

    Raises:
        UserError: If a pattern fits no name, all names are of val, or nobody knows the names.
    """
    if not isinstance(dataset, BoxDataset | FolderDataset):
        raise UserError(f"data.val_names={list(patterns)} is for images in folders")
    names = [bytes(name).decode(errors="replace") for name in dataset.image_names()]
    is_val = np.zeros(len(names), dtype=bool)
    for pattern in patterns:
        fits = np.array([fnmatch.fnmatchcase(name, pattern) for name in names])
        if not fits.any():
            raise UserError(
                f"data.val_names has {pattern!r}, which fits no image; the first is {names[0]}"
            )
        is_val |= fits
    if is_val.all():
        raise UserError(
            f"data.val_names={list(patterns)} holds out all {len(names)} images, and leaves none "
            "to train on"
        )
    return {
        "train": Subset(dataset, np.flatnonzero(~is_val)),
        "val": Subset(dataset, np.flatnonzero(is_val)),
    }

"""Samples of shards that have all that is asked for."""

from collections.abc import Collection, Mapping

import numpy as np

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import IMAGE
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.subset import Subset
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted


def keep_complete(
    sources: Mapping[str, ShardDataset], members: Collection[str]
) -> tuple[dict[str, ImageDataset], list[str]]:
    """Leave out samples that lack a member that is asked for.

    Args:
        sources: Data sets by split.
        members: Names of the members.

    Returns:
        The data sets, and lines on how many samples are left out.

    Raises:
        UserError: If a split has none left.
    """
    asked = " and ".join(sorted(set(members) - {IMAGE}))
    complete: dict[str, ImageDataset] = {**sources}
    lines = []
    for split, source in sources.items():
        kept = np.flatnonzero(source.is_complete())
        if not len(kept):
            raise UserError(f"no image of {split} has {asked}")
        if (number := len(source) - len(kept)) > 0:
            complete[split] = Subset(source, kept)
            lines.append(f"left out: {counted(number, 'image')} of {split} without {asked}")
    return complete, lines

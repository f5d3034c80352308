"""Shards as a source, to be packed anew."""

from pathlib import Path

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.finding import compressed_error, find_compressed, find_shards
from ssl_swin.data.shards.index import open_index
from ssl_swin.data.sources.archives import are_samples
from ssl_swin.data.sources.labelled import RelabelledDataset


def open_shards(root: Path, labelled: bool) -> dict[str, ImageDataset]:
    """Open the splits of a folder of shards.

    Raises:
        UserError: As `open_index`.
    """
    index = open_index(root)
    shards = {split: ShardDataset(index, split) for split in index.splits}
    return {**shards} if labelled else {s: RelabelledDataset(shards[s]) for s in shards}


def open_shards_below(root: Path, labelled: bool) -> dict[str, ImageDataset]:
    """Open the splits of a folder without images whose shards lie in its sub-folders.

    Returns:
        The splits; none if there is no shard.

    Raises:
        UserError: If the shards are compressed; also as `open_index`.
    """
    names = find_shards(root)
    if not names and (compressed := find_compressed(root)):
        raise compressed_error(root, compressed)
    if not names or not are_samples(root / names[0]):
        return {}
    return open_shards(root, labelled)

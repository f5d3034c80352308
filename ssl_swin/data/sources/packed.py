"""Shards as a source, to be packed anew."""

from collections.abc import Iterable
from pathlib import Path

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.file_types import IMAGE_EXTENSIONS
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.finding import compressed_error, find_compressed, find_shards
from ssl_swin.data.shards.index import open_index
from ssl_swin.data.shards.tar import TarMember, group_samples, scan_tar
from ssl_swin.data.sources.labelled import RelabelledDataset


def are_samples(members: Iterable[TarMember]) -> bool:
    """Return whether a tar is a shard: with labels or other files beside the images."""
    images = set(IMAGE_EXTENSIONS)
    samples = (set(extensions) for _, extensions in group_samples(members))
    return any(sample & images and sample - images for sample in samples)


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
    if not names or not are_samples(scan_tar(root / names[0]).members):
        return {}
    return open_shards(root, labelled)

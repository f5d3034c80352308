"""Remote shards, as data sets that fetch them through a cache on this node."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.remote.cache import ShardCache
from ssl_swin.data.remote.cache_options import CacheOptions
from ssl_swin.data.remote.index import fetch_index
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import check_index_dir, check_layout, load_index
from ssl_swin.data.shards.index_file import ShardIndex
from ssl_swin.data.shards.layout import CONVENTION, SampleLayout
from ssl_swin.errors import UserError

_BYTES_PER_GB = 10**9


class RemoteShardDataset(ShardDataset):
    """One split of a remote set; it fetches ahead what will be needed."""

    def __init__(
        self,
        index: ShardIndex,
        split: str,
        cache: ShardCache,
        members: Collection[str] | None = None,
    ) -> None:
        """Map the index; nothing is fetched yet.

        Args:
            index: Index of the set.
            split: Name of the split.
            cache: Cache of this node.
            members: Names of the members to read besides the image; None reads all.
        """
        super().__init__(index, split, locate=cache.path, members=members)
        self.cache = cache

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.index, self.split, self.cache, self._chosen)

    def check_cache(self, num_streams: int) -> None:
        """Refuse a cache too small for the shards in use at a time, two of each stream.

        Args:
            num_streams: Number of streams of the order, `data.order.lanes`.

        Raises:
            UserError: If shards would evict each other while they are needed.
        """
        sizes = sorted((shard.num_bytes for shard in self.shards), reverse=True)
        in_use = sum(sizes[: 2 * num_streams])
        if in_use > self.cache.limit_bytes:
            raise UserError(
                f"{2 * num_streams} shards of {self.split} are in use at a time, two of each "
                f"stream: {in_use / _BYTES_PER_GB:.3g} GB, more than the cache's "
                f"{self.cache.limit_bytes / _BYTES_PER_GB:g}. Raise data.cache.limit_gb, or lower "
                "data.order.lanes"
            )

    @property
    def fetches_ahead(self) -> bool:
        """Whether `fetch_ahead` has an effect: it has."""
        return True

    def fetch_ahead(self, indices: NDArray[np.int64]) -> None:
        """Fetch the shards of some samples in the background, in the order of need."""
        self.cache.prefetch(self.shards_of(indices))


def open_remote(
    root: str,
    *,
    index_dir: str | None,
    dir: str,
    limit_gb: float,
    num_tries: int,
    first_wait_s: float,
    members: Collection[str] | None = None,
    layout: SampleLayout = CONVENTION,
) -> dict[str, RemoteShardDataset]:
    """Open every split of a remote set.

    Args:
        root: URL or pipe, see `data/remote/fetch.py`.
        index_dir: Folder of the index; None fetches the one that lies beside the shards.
        dir: Folder of the cache, on this node's own disk.
        limit_gb: Capacity of the cache, in 10^9 bytes.
        num_tries: Number of tries of a transfer.
        first_wait_s: Wait before the second try; it doubles before each further one.
        members: Names of the members to read besides the image; None reads all.
        layout: Which files of a sample are the image and the label, where the user said so.

    Raises:
        UserError: If there is no index, it was made with another layout, or a number is out of
            range.
    """
    options = CacheOptions(dir, limit_gb, num_tries, first_wait_s)
    if index_dir is None:
        folder = Path(dir) / f"{fingerprint([root.rstrip('/')])}.index"
        fetch_index(root, folder, num_tries=num_tries, first_wait_s=first_wait_s)
    else:
        check_index_dir(f"'{root}'", index_dir)
        folder = Path(index_dir)
    index = load_index(folder, check_shards=False)
    check_layout(index, layout, f"ssl-swin index '{root}' --out {index_dir or 'DIR'}")
    cache = ShardCache(
        root,
        Path(dir),
        limit_bytes=options.limit_bytes,
        num_tries=num_tries,
        first_wait_s=first_wait_s,
    )
    return {split: RemoteShardDataset(index, split, cache, members) for split in index.splits}

"""Reading images by number: from indexed shards, folders and archives alike."""

from collections.abc import Sequence

import numpy as np

from ssl_swin.data.loading.evaluation import EvalLoader
from ssl_swin.data.loading.exact import ExactLoader, OrderedBatches
from ssl_swin.data.loading.order import OrderConstants, Samples
from ssl_swin.data.loading.protocol import Collate, MakeSample, Placement
from ssl_swin.data.records import ImageRecord, Source


class IndexedReader:
    """Exact loaders over any source."""

    def __init__(self, source: Source, order: OrderConstants, caveat: str = "") -> None:
        """Sets the reader up.

        Args:
            source: One split.
            order: Constants of the training order.
            caveat: What to tell of this way of reading.
        """
        self.source = source
        self.order = order
        self.caveat = caveat
        self.classes = source.classes
        self.num_samples = len(source)
        self.fingerprint = source.fingerprint

    @property
    def shard_lengths(self) -> Samples:
        """How many adjacent images lie together, int64; without shards that is all of them."""
        whole = np.array([self.num_samples])
        lengths: Samples = getattr(self.source, "shard_lengths", whole)
        return lengths

    def describe(self) -> str:
        """Says in one line what is read."""
        num_shards = len(self.shard_lengths)
        is_sharded = hasattr(self.source, "shard_lengths")
        return f"{self.num_samples} images" + (f" in {num_shards} shards" if is_sharded else "")

    def train_loader(
        self, make_sample: MakeSample, collate: Collate, placement: Placement, *, seed: int
    ) -> ExactLoader:
        """Shuffled batches: each image at most once an epoch over all ranks."""
        batches = OrderedBatches(
            self.source,
            make_sample,
            collate,
            placement,
            shard_lengths=self.shard_lengths,
            constants=self.order,
            seed=seed,
        )
        return ExactLoader(batches)

    def eval_loader(
        self, make_sample: MakeSample, collate: Collate, placement: Placement
    ) -> EvalLoader:
        """Every image once, always in the same order, dealt out over the ranks."""
        return EvalLoader(self.source, make_sample, collate, placement)


class SourcePart:
    """Some of a source's images, as a source."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source = source
        self.indices = indices
        self.classes = source.classes
        self.fingerprint = source.fingerprint

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> ImageRecord:
        return self.source[self.indices[index]]

"""Reading images straight from where they lie, one file at a time (L1)."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ssl_swin.data.loading import (
    Collate,
    EpochLoader,
    MakeSample,
    Placement,
    make_loader,
    shared_epoch,
)
from ssl_swin.data.records import ImageRecord, Source
from ssl_swin.data.rng import keyed_generator


class SourceReader:
    """Loaders over a source with random access, such as a folder of photographs."""

    caveat = "a run resumed inside an epoch repeats some of its images; packed, they read faster"

    def __init__(self, source: Source) -> None:
        self.source = source
        self.classes = source.classes
        self.num_samples = len(source)
        self.fingerprint = source.fingerprint

    def describe(self) -> str:
        """Says in one line what is read."""
        return f"{self.num_samples} image files, one by one"

    def train_loader(
        self, make_sample: MakeSample, collate: Collate, placement: Placement, *, seed: int
    ) -> EpochLoader:
        """Shuffled batches: each image at most once an epoch over all ranks."""
        epoch = shared_epoch()
        batches = ShuffledBatches(self.num_samples, placement, epoch, seed)
        dataset = SourceDataset(self.source, make_sample, epoch)
        return make_loader(
            dataset, epoch, placement, collate, num_batches=len(batches), sampler=batches
        )

    def eval_loader(
        self, make_sample: MakeSample, collate: Collate, placement: Placement
    ) -> EpochLoader:
        """Every image once, always in the same order, dealt out over the ranks."""
        epoch = shared_epoch()
        batches = FixedBatches(self.num_samples, placement)
        dataset = SourceDataset(self.source, make_sample, epoch)
        return make_loader(
            dataset, epoch, placement, collate, num_batches=len(batches), sampler=batches
        )


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


class SourceDataset(Dataset[Any]):
    """Makes sample `index` of the current epoch."""

    def __init__(self, source: Source, make_sample: MakeSample, epoch: Tensor) -> None:
        self.source = source
        self.make_sample = make_sample
        self.epoch = epoch

    def __getitem__(self, index: int) -> Any:
        return self.make_sample(self.source[index], int(self.epoch))


class ShuffledBatches(Sampler[list[int]]):
    """This rank's share of each global batch, from a permutation keyed by (seed, epoch)."""

    def __init__(self, num_samples: int, placement: Placement, epoch: Tensor, seed: int) -> None:
        self.num_samples = num_samples
        self.placement = placement
        self.epoch = epoch
        self.seed = seed

    def __len__(self) -> int:
        return self.num_samples // (self.placement.batch_size * self.placement.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = keyed_generator(self.seed, int(self.epoch), "order")
        order = generator.permutation(self.num_samples)
        size, world = self.placement.batch_size, self.placement.world_size
        for batch in range(len(self)):
            start = (batch * world + self.placement.rank) * size
            yield order[start : start + size].tolist()


class FixedBatches(Sampler[list[int]]):
    """Every `world_size`-th sample from this rank's first, in batches; the last may be smaller.

    The order is one permutation for good: folders come class by class, and who stops early should
    have seen images of all.
    """

    def __init__(self, num_samples: int, placement: Placement) -> None:
        order = keyed_generator("evaluation order").permutation(num_samples)
        self.indices = order[placement.rank :: placement.world_size]
        self.batch_size = placement.batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield self.indices[start : start + self.batch_size].tolist()

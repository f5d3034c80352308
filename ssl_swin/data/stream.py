"""Streaming WebDataset shards through the `webdataset` package (L1).

Shards are dealt out to ranks and their workers, read one after another, and shuffled in a buffer.
Who reads fewer images starts over until everyone has the same number of batches, so an epoch
repeats a few images and misses a few. What a sample looks like is exact; which samples an epoch
holds is not.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import webdataset as wds
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ssl_swin.data.index import ShardIndex
from ssl_swin.data.loading import (
    Collate,
    EpochLoader,
    MakeSample,
    Placement,
    make_loader,
    shared_epoch,
)
from ssl_swin.data.records import IMAGE_EXTENSIONS, ImageRecord
from ssl_swin.data.rng import keyed_generator
from ssl_swin.errors import UserError

SHUFFLE_BUFFER = 2000  # samples, still encoded, per worker


class StreamReader:
    """Loaders over one split of a folder of shards."""

    caveat = (
        "an epoch may repeat or miss a few images, and a run resumed inside an epoch reshuffles it"
    )

    def __init__(self, index: ShardIndex, split: str) -> None:
        # An empty shard would be read over and over for the sake of an image.
        self.shards = [index.root / s.name for s in index.splits[split] if s.num_samples > 0]
        self.classes = index.classes
        self.num_samples = index.num_samples(split)
        self.fingerprint = index.fingerprint

    def describe(self) -> str:
        """Says in one line what is read."""
        return f"{self.num_samples} images streamed from {len(self.shards)} shards"

    def train_loader(
        self, make_sample: MakeSample, collate: Collate, placement: Placement, *, seed: int
    ) -> EpochLoader:
        """Shuffled batches, as many on every rank.

        Raises:
            UserError: If there are fewer shards than ranks.
        """
        if len(self.shards) < placement.world_size:
            raise UserError(
                f"{len(self.shards)} shards cannot be dealt out to {placement.world_size} "
                "processes; pack the set into more with --shard-samples"
            )
        workers = min(placement.num_workers, len(self.shards) // placement.world_size)
        placement = Placement(placement.batch_size, workers, placement.rank, placement.world_size)
        num_batches = self.num_samples // (placement.batch_size * placement.world_size)
        epoch = shared_epoch()
        stream = ShuffledStream(self.shards, make_sample, placement, epoch, num_batches, seed)
        return make_loader(stream, epoch, placement, collate, num_batches=num_batches)

    def eval_loader(
        self, make_sample: MakeSample, collate: Collate, placement: Placement
    ) -> EpochLoader:
        """Every image once, dealt out over ranks and workers."""
        epoch = shared_epoch()
        stream = OrderedStream(self.shards, make_sample, placement)
        share = len(range(placement.rank, self.num_samples, placement.world_size))
        # Every worker deals its own batches and may end on a partial one.
        consumers = max(1, placement.num_workers)
        num_batches = sum(
            -(-len(range(worker, share, consumers)) // placement.batch_size)
            for worker in range(consumers)
        )
        return make_loader(stream, epoch, placement, collate, num_batches=num_batches)


class ShuffledStream(IterableDataset[Any]):
    """This worker's exact share of an epoch's training samples."""

    def __init__(
        self,
        shards: Sequence[Path],
        make_sample: MakeSample,
        placement: Placement,
        epoch: Tensor,
        num_batches: int,
        seed: int,
    ) -> None:
        self.shards = shards
        self.make_sample = make_sample
        self.placement = placement
        self.epoch = epoch
        self.num_batches = num_batches
        self.seed = seed

    def __iter__(self) -> Iterator[Any]:
        worker, num_workers = _worker()
        epoch = int(self.epoch)
        my_batches = len(range(worker, self.num_batches, num_workers))
        records = self._records(epoch, worker, num_workers)
        for record in islice(records, my_batches * self.placement.batch_size):
            yield self.make_sample(record, epoch)

    def _records(self, epoch: int, worker: int, num_workers: int) -> Iterator[ImageRecord]:
        """Reads this worker's shards over and over, in a new order each time."""
        order = keyed_generator(self.seed, epoch, "shards").permutation(len(self.shards))
        reader = self.placement.rank + self.placement.world_size * worker
        mine = order[reader :: self.placement.world_size * num_workers]
        for lap in count():
            generator = keyed_generator(self.seed, epoch, reader, lap)
            lap_shards = [self.shards[i] for i in generator.permutation(mine)]
            yield from read_records(lap_shards, random.Random(int(generator.integers(2**63))))


class OrderedStream(IterableDataset[Any]):
    """This worker's share of the evaluation samples, each once."""

    def __init__(
        self, shards: Sequence[Path], make_sample: MakeSample, placement: Placement
    ) -> None:
        self.shards = shards
        self.make_sample = make_sample
        self.placement = placement

    def __iter__(self) -> Iterator[Any]:
        worker, num_workers = _worker()
        first = self.placement.rank + self.placement.world_size * worker
        step = self.placement.world_size * num_workers
        for record in islice(read_records(self.shards), first, None, step):
            yield self.make_sample(record, 0)


def read_records(
    shards: Sequence[Path], shuffle: random.Random | None = None
) -> Iterator[ImageRecord]:
    """Reads the samples of local shards with the webdataset package.

    Args:
        shards: Tar files, in the order to read.
        shuffle: Source of a buffered shuffle; None keeps the order.
    """
    stages = [wds.SimpleShardList([str(path) for path in shards]), wds.tarfile_to_samples()]
    if shuffle is not None:
        stages.append(wds.shuffle(SHUFFLE_BUFFER, initial=SHUFFLE_BUFFER, rng=shuffle))
    for sample in wds.DataPipeline(*stages):
        yield _to_record(sample)


def _to_record(sample: dict[str, Any]) -> ImageRecord:
    name = f"{Path(sample['__url__']).name}:{sample['__key__']}"
    for extension in sample:
        if extension.lower() in IMAGE_EXTENSIONS:
            label = int(sample["cls"]) if "cls" in sample else None
            return ImageRecord(sample[extension], extension.lower(), label, name)
    members = ", ".join(key for key in sample if not key.startswith("__"))
    raise UserError(f"sample {name} holds no image, only: {members}")


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)

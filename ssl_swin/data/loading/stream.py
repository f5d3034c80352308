"""Streaming WebDataset shards through the `webdataset` package.

For sources that cannot be indexed, such as a pipe. Shards are distributed to ranks and their
workers, read one after another, and shuffled in a buffer. A worker with fewer images starts over
until all have the same number of batches, so an epoch repeats a few images and misses a few. The
pixels of a sample are exact; which samples an epoch holds is not.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.loading.protocol import (
    BadSample,
    Collate,
    LoaderConfig,
    MakeSample,
    WorkerOwner,
    start_workers,
)
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.shards.finding import (
    find_compressed,
    find_shards,
    refuse_unstreamable,
    splits_of,
)
from ssl_swin.data.shards.index_file import ShardIndex
from ssl_swin.data.shards.labels import values_of_classes
from ssl_swin.data.shards.layout import SampleLayout
from ssl_swin.data.shards.previous_index import kept_classes
from ssl_swin.data.shards.streaming import (
    BY_CONVENTION,
    SampleReading,
    count_samples,
    good_samples,
    read_samples,
)
from ssl_swin.display.work import followed
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted


class EpochLoader(WorkerOwner):
    """A loader that tells its workers which epoch it is when iteration really begins.

    Lightning calls `iter` before it knows the epoch it resumes in, so the epoch is read at the
    first `next`. It travels by shared memory, which reaches workers that persist between epochs.
    """

    def __init__(self, loader: "DataLoader[Any]", epoch_cell: Tensor, num_batches: int) -> None:
        self.loader = loader
        self.epoch_cell = epoch_cell
        self.num_batches = num_batches
        self.current_epoch: Callable[[], int] = lambda: 0
        self.bad_samples: list[BadSample] = []  # stays empty: nobody can count them

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Any]:
        self.epoch_cell.fill_(self.current_epoch())
        yield from self.loader


class StreamSplit:
    """Loaders over one split, given as anything that webdataset opens: paths, URLs, pipes."""

    warning = (
        "read as a stream: an epoch may repeat or miss a few images, a run resumed inside an epoch "
        "reshuffles it, an image that cannot be read is left out uncounted, and a shard that was "
        "cut short ends without a word"
    )

    def __init__(
        self,
        shards: Sequence[str],
        *,
        num_samples: int,
        classes: tuple[str, ...] = (),
        fingerprint: str = "unknown",
        reading: SampleReading = BY_CONVENTION,
    ) -> None:
        """Set the split up.

        Args:
            shards: Paths, URLs or pipes, of one tar each.
            num_samples: Number of samples in all shards together, the length of an epoch.
            classes: Class names by label.
            fingerprint: Digest of the list of samples, where it is known.
            reading: How the files of a sample become one.
        """
        self.shards = shards
        self.num_samples = num_samples
        self.classes = classes
        self.fingerprint = fingerprint
        self.reading = reading

    def with_limit(self, max_file_bytes: int) -> "StreamSplit":
        """Return the split with another limit of what is read into memory.

        Args:
            max_file_bytes: Largest file of a sample; a larger one makes its sample unreadable.
        """
        return StreamSplit(
            self.shards,
            num_samples=self.num_samples,
            classes=self.classes,
            fingerprint=self.fingerprint,
            reading=replace(self.reading, max_file_bytes=max_file_bytes),
        )

    def summary(self) -> str:
        """Return one line on what is read."""
        return (
            f"{counted(self.num_samples, 'image')} streamed from "
            f"{counted(len(self.shards), 'shard')}"
        )

    def train_loader(
        self, make_sample: MakeSample, collate: Collate, config: LoaderConfig, *, seed: int
    ) -> EpochLoader:
        """Return shuffled batches, as many on every rank.

        Raises:
            UserError: If there are fewer shards than ranks.
        """
        if len(self.shards) < config.world_size:
            raise UserError(
                f"{len(self.shards)} shards cannot be dealt out to {config.world_size} "
                "processes; pack the set into more with --shard-samples"
            )
        workers = min(config.num_workers, len(self.shards) // config.world_size)
        config = LoaderConfig(config.batch_size, workers, config.rank, config.world_size)
        num_batches = self.num_samples // config.global_batch_size
        epoch = _shared_epoch()
        stream = ShuffledStream(
            self.shards, make_sample, config, epoch, num_batches, seed, self.reading
        )
        return _epoch_loader(stream, epoch, config, collate, num_batches)

    def eval_loader(
        self, make_sample: MakeSample, collate: Collate, config: LoaderConfig
    ) -> EpochLoader:
        """Return every image once, distributed over ranks and workers."""
        stream = OrderedStream(self.shards, make_sample, config, self.reading)
        share = len(range(config.rank, self.num_samples, config.world_size))
        # Every worker deals its own batches and may end on a partial one.
        consumers = max(1, config.num_workers)
        num_batches = sum(
            -(-len(range(worker, share, consumers)) // config.batch_size)
            for worker in range(consumers)
        )
        return _epoch_loader(stream, _shared_epoch(), config, collate, num_batches)


def stream_split(index: ShardIndex, split: str) -> StreamSplit:
    """Open one split of a folder of shards as a stream."""
    return StreamSplit(
        # An empty shard would be read over and over for the sake of an image.
        [str(index.root / shard.name) for shard in index.splits[split] if shard.num_samples],
        num_samples=index.num_samples(split),
        classes=index.classes,
        fingerprint=index.fingerprint,
        reading=SampleReading(index.layout, index.label_values, str(index.root)),
    )


def compressed_splits(
    folder: Path, layout: SampleLayout, num_samples: int | None
) -> dict[str, StreamSplit]:
    """Open a folder that holds compressed shards, which no index can list.

    Args:
        folder: The folder; shards that are not compressed are read as well.
        layout: Which files of a sample are the image and the label.
        num_samples: Number of samples of train; None counts them by reading every shard through,
            as those of other splits are.

    Raises:
        UserError: If a shard cannot be read here, or the splits of the shards are open.
    """
    found = sorted((*find_shards(folder), *find_compressed(folder)))
    names: dict[str, list[str]] = {}
    for split, name in zip(splits_of(found), found, strict=True):
        names.setdefault(split, []).append(name)
    within = sorted({(folder / name).parent for name in found} - {folder})
    classes = kept_classes(layout, [folder], within)
    for name in found:
        refuse_unstreamable(folder / name)
    splits = {}
    for split, group in names.items():
        shards = [str(folder / name) for name in group]
        listing = (f"{split}\t{name}\t{(folder / name).stat().st_size}" for name in group)
        counted = num_samples if split == "train" else None
        splits[split] = StreamSplit(
            shards,
            num_samples=counted or _count(shards, split),
            classes=classes,
            fingerprint=fingerprint(listing),
            reading=SampleReading(layout, values_of_classes(classes), str(folder)),
        )
    return splits


def _count(shards: Sequence[str], split: str) -> int:
    shown = followed(shards, f"counting {split}", len(shards), "shards")
    return sum(map(count_samples, shown))


def _epoch_loader(
    stream: "IterableDataset[Any]",
    epoch_cell: Tensor,
    config: LoaderConfig,
    collate: Collate,
    num_batches: int,
) -> EpochLoader:
    loader = start_workers(stream, config, batch_size=config.batch_size, collate=collate)
    return EpochLoader(loader, epoch_cell, num_batches)


def _shared_epoch() -> Tensor:
    """Return an integer that worker processes see change."""
    epoch = torch.zeros((), dtype=torch.int64)
    epoch.share_memory_()  # type: ignore[no-untyped-call]
    return epoch


class ShuffledStream(IterableDataset[Any]):
    """This worker's exact share of an epoch's training samples."""

    def __init__(
        self,
        shards: Sequence[str],
        make_sample: MakeSample,
        config: LoaderConfig,
        epoch: Tensor,
        num_batches: int,
        seed: int,
        reading: SampleReading = BY_CONVENTION,
    ) -> None:
        self.shards = shards
        self.make_sample = make_sample
        self.config = config
        self.epoch = epoch
        self.num_batches = num_batches
        self.seed = seed
        self.reading = reading

    def __iter__(self) -> Iterator[Any]:
        worker, num_workers = _worker()
        epoch = int(self.epoch)
        my_batches = len(range(worker, self.num_batches, num_workers))
        encoded_samples = self._encoded_samples(epoch, worker, num_workers)
        samples = good_samples(encoded_samples, self.make_sample, epoch)
        yield from islice(samples, my_batches * self.config.batch_size)

    def _encoded_samples(
        self, epoch: int, worker: int, num_workers: int
    ) -> Iterator[EncodedSample | UserError]:
        """Read this worker's shards over and over, in a new order each time."""
        order = keyed_generator(self.seed, epoch, "shards").permutation(len(self.shards))
        reader = self.config.rank + self.config.world_size * worker
        mine = order[reader :: self.config.world_size * num_workers]
        for lap in count():
            generator = keyed_generator(self.seed, epoch, reader, lap)
            lap_shards = [self.shards[i] for i in generator.permutation(mine)]
            shuffle = random.Random(int(generator.integers(2**63)))
            yield from read_samples(lap_shards, shuffle, self.reading)


class OrderedStream(IterableDataset[Any]):
    """This worker's share of the evaluation samples, each once."""

    def __init__(
        self,
        shards: Sequence[str],
        make_sample: MakeSample,
        config: LoaderConfig,
        reading: SampleReading = BY_CONVENTION,
    ) -> None:
        self.shards = shards
        self.make_sample = make_sample
        self.config = config
        self.reading = reading

    def __iter__(self) -> Iterator[Any]:
        worker, num_workers = _worker()
        first = self.config.rank + self.config.world_size * worker
        step = self.config.world_size * num_workers
        encoded_samples = islice(read_samples(self.shards, reading=self.reading), first, None, step)
        yield from good_samples(encoded_samples, self.make_sample, epoch=0)


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)

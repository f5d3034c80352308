"""Loaders whose cursor in the data is two integers, whatever reads the images.

The order of an epoch (`order.py`) is cut into global batches, and each of those is distributed over
the ranks. So (epoch, position) is all of a run's state in the data: it is the same on every rank,
and a run may continue from it with other ranks, workers and batch sizes. Random access makes
entering an epoch in its middle as fast as at its start.
"""

from collections.abc import Iterator
from copy import copy
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler

from ssl_swin.data.dataset import ImageDataset, Indices
from ssl_swin.data.loading.order import OrderConstants, SampleOrder
from ssl_swin.data.loading.protocol import (
    MOST_TRIES,
    BadSample,
    Collate,
    LoaderConfig,
    MakeSample,
    read_sample,
    start_workers,
)
from ssl_swin.errors import UserError


class Cursor(NamedTuple):
    """Where a global batch begins."""

    epoch: int  # passes over the data before it
    position: int  # samples of the epoch before it, over all ranks


class LoadedBatch(NamedTuple):
    """A batch as it comes from a worker."""

    batch: Any  # None if no image could be read
    cursor: Cursor
    bad_samples: list[BadSample]


class ExactLoader:
    """Training batches from a cursor on, without end.

    One iteration yields as many batches as a pass over the data has, and the next iteration
    continues where it ended. Leaving an iteration early, as shortened epochs do, loses nothing.
    """

    def __init__(self, batches: "OrderedBatches") -> None:
        """Set the loader up at the beginning; nothing is read yet.

        Args:
            batches: The batches of this rank, which the workers load.
        """
        self.batches = batches
        self.config = batches.config
        self.num_samples = len(batches.dataset)
        self.bad_samples: list[BadSample] = []
        self.served: Cursor | None = None  # where the last batch began
        # Under this name Lightning finds the workers to end them after a run.
        self._iterator: Iterator[LoadedBatch] | None = None
        self._cursor = Cursor(0, 0)
        self._fetched_ahead = Cursor(-1, 0)

    def __len__(self) -> int:
        return self.num_samples // self.config.global_batch_size

    def __iter__(self) -> Iterator[Any]:
        # A generator: it starts from the cursor that is set at the first `next`. Lightning calls
        # `iter` before it restores a run.
        for _ in range(len(self)):
            yield self.advance()

    @property
    def cursor(self) -> Cursor:
        """Where the next batch begins."""
        return self._cursor

    @property
    def order_key(self) -> dict[str, int | None]:
        """All that the order depends on besides the data."""
        return {"seed": self.batches.seed, **asdict(self.batches.constants)}

    def go_to(self, cursor: Cursor) -> None:
        """Make the batch at `cursor` the next one."""
        self._cursor = _in_epoch(cursor, self.num_samples, self.config.global_batch_size)
        self._iterator = None

    def of_size(self, batch_size: int) -> "ExactLoader":
        """Return a loader of the images of all ranks in their order, in batches of another size."""
        batches = copy(self.batches)
        batches.config = replace(self.config, batch_size=batch_size, rank=0, world_size=1)
        return ExactLoader(batches)

    def advance(self) -> Any:
        """Return the next batch.

        Raises:
            UserError: If too many images in a row cannot be read.
        """
        if self._iterator is None:
            cursors = CursorSampler(self._cursor, self.num_samples, self.config.global_batch_size)
            self._iterator = iter(start_workers(self.batches, self.config, sampler=cursors))
        self._fetch_ahead()
        loaded = next(self._iterator)
        if loaded.cursor != self._cursor:
            raise RuntimeError(f"expected the batch at {self._cursor}, got that at {loaded.cursor}")
        self.served = self._cursor
        # Before the batch is returned: after an epoch's last one nobody asks for another.
        self._cursor = _after(self._cursor, self.num_samples, self.config.global_batch_size)
        self.bad_samples += loaded.bad_samples
        if loaded.batch is None:
            name, reason = loaded.bad_samples[-1]
            raise UserError(
                f"{MOST_TRIES} images in a row cannot be read, the last is {name}: {reason}"
            )
        return loaded.batch

    def _fetch_ahead(self) -> None:
        """Tell a data set that fetches its shards which images this rank needs next.

        These are the images of the next two shuffle buffers. Those of the next epoch follow on this
        epoch's, so that its beginning need not wait.
        """
        if not self.batches.dataset.fetches_ahead:
            return
        pool = self.batches.constants.pool
        epoch, position = self._cursor
        if self._fetched_ahead.epoch == epoch and position < self._fetched_ahead.position:
            return
        self._fetched_ahead = Cursor(epoch, position + pool // 4)
        stop = position + 2 * pool
        here = self._of_this_rank(epoch, position, stop)
        following = self._of_this_rank(epoch + 1, 0, stop - self.num_samples)
        self.batches.dataset.fetch_ahead(np.concatenate([here, following]))

    def _of_this_rank(self, epoch: int, start: int, stop: int) -> Indices:
        """Return this rank's samples at positions [start, stop) of an epoch, as far as it goes."""
        first, last = start + self.config.rank, min(stop, self.num_samples)
        if first >= last:
            return np.empty(0, dtype=np.int64)
        return self.batches.order(epoch).indices(np.arange(first, last, self.config.world_size))


class CursorSampler(Sampler[Cursor]):
    """The beginnings of all global batches from a cursor on.

    It never ends, so that workers prepare the next epoch's first batches during the last ones.
    """

    def __init__(self, first: Cursor, num_samples: int, global_batch_size: int) -> None:
        self.first = first
        self.num_samples = num_samples
        self.global_batch_size = global_batch_size

    def __iter__(self) -> Iterator[Cursor]:
        cursor = self.first
        while True:
            yield cursor
            cursor = _after(cursor, self.num_samples, self.global_batch_size)


class OrderedBatches(Dataset[LoadedBatch]):
    """This rank's part of the global batch at a cursor."""

    def __init__(
        self,
        dataset: ImageDataset,
        make_sample: MakeSample,
        collate: Collate,
        config: LoaderConfig,
        *,
        shard_lengths: Indices,
        constants: OrderConstants,
        seed: int,
    ) -> None:
        """Set the batches up; nothing is read yet.

        Args:
            dataset: The encoded samples.
            make_sample: Makes a training example of an encoded sample and the epoch.
            collate: Makes a batch of examples.
            config: Size of the batches, and which part of each this rank loads.
            shard_lengths: Numbers of adjacent samples that lie together, int64 (shards,).
            constants: Constants of the order.
            seed: Seed of the order.
        """
        self.dataset = dataset
        self.make_sample = make_sample
        self.collate = collate
        self.config = config
        self.shard_lengths = shard_lengths
        self.constants = constants
        self.seed = seed
        self._orders: dict[int, SampleOrder] = {}

    def order(self, epoch: int) -> SampleOrder:
        """Return the order of an epoch; that of the epoch before is kept as well."""
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = SampleOrder(
                self.shard_lengths, self.constants, seed=self.seed, epoch=epoch
            )
        return self._orders[epoch]

    def indices(self, cursor: Cursor) -> Indices:
        """Return which samples of the data set this rank gets, int64 (batch_size,)."""
        return self.order(cursor.epoch).indices(self._positions(cursor))

    def __getitem__(self, cursor: Cursor) -> LoadedBatch:
        positions, indices = self._positions(cursor), self.indices(cursor)
        self.dataset.advise(indices)
        bad_samples: list[BadSample] = []
        examples = []
        for position, index in zip(positions.tolist(), indices.tolist(), strict=True):
            example = self._example(cursor.epoch, position, index, bad_samples)
            if example is None:
                return LoadedBatch(None, cursor, bad_samples)
            examples.append(example)
        return LoadedBatch(self.collate(examples), cursor, bad_samples)

    def _positions(self, cursor: Cursor) -> Indices:
        """Return every `world_size`-th of the global batch, which keeps a rank on its streams."""
        share = np.arange(self.config.batch_size, dtype=np.int64) * self.config.world_size
        return cursor.position + self.config.rank + share

    def _example(
        self, epoch: int, position: int, index: int, bad_samples: list[BadSample]
    ) -> Any | None:
        """Make the example at a position; one that cannot be read is replaced by the next.

        That is the next of the order: which one it is does not depend on ranks or workers.
        """
        for attempt in range(1, MOST_TRIES + 1):
            example = read_sample(self.dataset, self.make_sample, index, epoch)
            if not isinstance(example, BadSample):
                return example
            bad_samples.append(example)
            following = np.array([(position + attempt) % len(self.dataset)])
            index = int(self.order(epoch).indices(following)[0])
        return None


def _after(cursor: Cursor, num_samples: int, global_batch_size: int) -> Cursor:
    following = Cursor(cursor.epoch, cursor.position + global_batch_size)
    return _in_epoch(following, num_samples, global_batch_size)


def _in_epoch(cursor: Cursor, num_samples: int, global_batch_size: int) -> Cursor:
    """Step over an epoch's last samples where they do not fill a batch."""
    if cursor.position + global_batch_size > num_samples:
        return Cursor(cursor.epoch + 1, 0)
    return cursor

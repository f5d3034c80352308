"""Loaders whose place in the data is two integers, whatever reads the images.

The order of an epoch (`order.py`) is cut into global batches, and each of those is dealt out over
the ranks. So (epoch, position) says all about where a run is: it is the same on every rank,
and a run may go on from it with other ranks, workers and batch sizes. Random access makes entering
an epoch in its middle as fast as at its start.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler

from ssl_swin.data.loading.order import OrderConstants, SampleOrder, Samples
from ssl_swin.data.loading.protocol import (
    MOST_TRIES,
    BadSample,
    Collate,
    MakeSample,
    Placement,
    read_sample,
    start_workers,
)
from ssl_swin.data.records import Source
from ssl_swin.errors import UserError


class Place(NamedTuple):
    """Where a global batch begins."""

    epoch: int  # passes over the data before it
    position: int  # samples of the epoch before it, over all ranks


class LoadedBatch(NamedTuple):
    """A batch as it comes from a worker."""

    batch: Any  # None if no image could be read
    place: Place
    bad_samples: list[BadSample]


class ExactLoader:
    """Training batches from a place on, and from then on without end.

    One iteration hands out as many batches as a pass over the data has, and the next one goes on
    where it ended. Whoever leaves an iteration early, as shortened epochs do, loses nothing.
    """

    def __init__(self, batches: "OrderedBatches") -> None:
        """Sets the loader up at the beginning; nothing is read yet.

        Args:
            batches: What workers load.
        """
        self.batches = batches
        self.placement = batches.placement
        self.num_samples = len(batches.source)
        self.bad_samples: list[BadSample] = []
        # Under this name Lightning finds the workers to end them after a run.
        self._iterator: Iterator[LoadedBatch] | None = None
        self._place = Place(0, 0)
        self._fetched_ahead = Place(-1, 0)

    def __len__(self) -> int:
        return self.num_samples // self.placement.global_batch_size

    def __iter__(self) -> Iterator[Any]:
        # A generator: it starts from the place that is set at the first `next`. Lightning calls
        # `iter` before it restores a run.
        for _ in range(len(self)):
            yield self._advance()

    @property
    def place(self) -> Place:
        """Where the next batch begins."""
        return self._place

    @property
    def order_key(self) -> dict[str, int | None]:
        """All that the order depends on besides the data."""
        return {"seed": self.batches.seed, **asdict(self.batches.constants)}

    def go_to(self, place: Place) -> None:
        """Makes the batch at `place` the next one."""
        self._place = _in_epoch(place, self.num_samples, self.placement.global_batch_size)
        self._iterator = None

    def _advance(self) -> Any:
        if self._iterator is None:
            places = Places(self._place, self.num_samples, self.placement.global_batch_size)
            self._iterator = iter(start_workers(self.batches, self.placement, sampler=places))
        self._fetch_ahead()
        loaded = next(self._iterator)
        if loaded.place != self._place:
            raise RuntimeError(f"expected the batch at {self._place}, got that at {loaded.place}")
        # Before the batch is handed out: after an epoch's last nobody asks for another.
        self._place = _after(self._place, self.num_samples, self.placement.global_batch_size)
        self.bad_samples += loaded.bad_samples
        if loaded.batch is None:
            name, reason = loaded.bad_samples[-1]
            raise UserError(
                f"{MOST_TRIES} images in a row cannot be read, the last is {name}: {reason}"
            )
        return loaded.batch

    def _fetch_ahead(self) -> None:
        """Tells a source that fetches its shards which images this rank needs in the next pools.

        Those of the next epoch follow on this one's, so that its beginning need not wait.
        """
        fetch_ahead = getattr(self.batches.source, "fetch_ahead", None)
        if fetch_ahead is None:
            return
        pool = self.batches.constants.pool
        epoch, position = self._place
        if self._fetched_ahead.epoch == epoch and position < self._fetched_ahead.position:
            return
        self._fetched_ahead = Place(epoch, position + pool // 4)
        stop = position + 2 * pool
        here = self._mine(epoch, position, stop)
        fetch_ahead(np.concatenate([here, self._mine(epoch + 1, 0, stop - self.num_samples)]))

    def _mine(self, epoch: int, start: int, stop: int) -> Samples:
        """Samples of this rank at positions [start, stop) of an epoch, as far as there are any."""
        first, last = start + self.placement.rank, min(stop, self.num_samples)
        if first >= last:
            return np.empty(0, dtype=np.int64)
        return self.batches.order(epoch).samples(np.arange(first, last, self.placement.world_size))


class Places(Sampler[Place]):
    """The beginnings of all global batches from a place on.

    It never ends, so that workers prepare the next epoch's first batches during the last ones.
    """

    def __init__(self, first: Place, num_samples: int, global_batch_size: int) -> None:
        self.first = first
        self.num_samples = num_samples
        self.global_batch_size = global_batch_size

    def __iter__(self) -> Iterator[Place]:
        place = self.first
        while True:
            yield place
            place = _after(place, self.num_samples, self.global_batch_size)


class OrderedBatches(Dataset[LoadedBatch]):
    """This rank's part of the global batch at a place."""

    def __init__(
        self,
        source: Source,
        make_sample: MakeSample,
        collate: Collate,
        placement: Placement,
        *,
        shard_lengths: Samples,
        constants: OrderConstants,
        seed: int,
    ) -> None:
        """Sets the batches up; nothing is read yet.

        Args:
            source: Of the images.
            make_sample: Makes a sample of an image and the epoch.
            collate: Makes a batch of samples.
            placement: Which part of each global batch to load.
            shard_lengths: int64 (shards,), how many adjacent images of the source lie together.
            constants: Of the order.
            seed: Of the order.
        """
        self.source = source
        self.make_sample = make_sample
        self.collate = collate
        self.placement = placement
        self.shard_lengths = shard_lengths
        self.constants = constants
        self.seed = seed
        self._orders: dict[int, SampleOrder] = {}

    def order(self, epoch: int) -> SampleOrder:
        """Gives the order of an epoch; that of the one before is kept as well."""
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = SampleOrder(
                self.shard_lengths, self.constants, seed=self.seed, epoch=epoch
            )
        return self._orders[epoch]

    def indices(self, place: Place) -> Samples:
        """Which samples of the source this rank gets, int64 (batch_size,)."""
        return self.order(place.epoch).samples(self._positions(place))

    def __getitem__(self, place: Place) -> LoadedBatch:
        positions = self._positions(place)
        indices = self.order(place.epoch).samples(positions)
        advise = getattr(self.source, "advise", None)
        if advise is not None:
            advise(indices)
        bad_samples: list[BadSample] = []
        samples = []
        for position, index in zip(positions.tolist(), indices.tolist(), strict=True):
            sample = self._sample(place.epoch, position, index, bad_samples)
            if sample is None:
                return LoadedBatch(None, place, bad_samples)
            samples.append(sample)
        return LoadedBatch(self.collate(samples), place, bad_samples)

    def _positions(self, place: Place) -> Samples:
        """Every `world_size`-th of the global batch, which keeps a rank on its lanes."""
        share = np.arange(self.placement.batch_size, dtype=np.int64) * self.placement.world_size
        return place.position + self.placement.rank + share

    def _sample(
        self, epoch: int, position: int, index: int, bad_samples: list[BadSample]
    ) -> Any | None:
        """Makes the sample at a position; one that cannot be read gives way to the next.

        The next of the order, that is: which one steps in does not depend on ranks or workers.
        """
        for attempt in range(1, MOST_TRIES + 1):
            sample = read_sample(self.source, self.make_sample, index, epoch)
            if not isinstance(sample, BadSample):
                return sample
            bad_samples.append(sample)
            following = np.array([(position + attempt) % len(self.source)])
            index = int(self.order(epoch).samples(following)[0])
        return None


def _after(place: Place, num_samples: int, global_batch_size: int) -> Place:
    following = Place(place.epoch, place.position + global_batch_size)
    return _in_epoch(following, num_samples, global_batch_size)


def _in_epoch(place: Place, num_samples: int, global_batch_size: int) -> Place:
    """Steps over an epoch's last samples where they do not fill a batch."""
    if place.position + global_batch_size > num_samples:
        return Place(place.epoch + 1, 0)
    return place

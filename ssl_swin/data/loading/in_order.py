"""Batches in the order of the data, from any batch on: for results that name every image."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.loading.protocol import (
    BadSample,
    Collate,
    LoaderConfig,
    MakeSample,
    WorkerOwner,
    read_samples,
    start_workers,
)

FETCHED_AHEAD = 8  # batches


class ReadBatch(NamedTuple):
    """What came of some images in a row."""

    batch: Any | None  # of those that could be read; None if there is none
    bad_samples: list[BadSample]
    num_images: int  # read or not


class InOrderLoader(WorkerOwner):
    """Every image from a batch on, once, in the order of the data.

    A batch is that of the same images wherever the loader begins, so that work which was cut short
    goes on to the same numbers.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        make_sample: MakeSample,
        collate: Collate,
        config: LoaderConfig,
        *,
        first_batch: int = 0,
    ) -> None:
        """Set the loader up.

        Args:
            dataset: The images.
            make_sample: Makes an example of an encoded sample and the epoch, which is 0.
            collate: Makes a batch of examples.
            config: Size of the batches and number of loading processes.
            first_batch: Number of the batch to begin with, from 0.
        """
        batches = _Batches(dataset, make_sample, collate, config.batch_size)
        self.batches = batches
        self.numbers = range(first_batch, len(batches))
        self.loader = start_workers(batches, config, sampler=self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[ReadBatch]:
        try:
            for number, read in zip(self.numbers, self.loader, strict=True):
                self.batches.fetch_ahead(number)
                yield read
        finally:
            self.close()

    def close(self) -> None:
        """End the loading processes, which the garbage collector would wait for."""
        if self._iterator is not None:
            self._iterator._shutdown_workers()


class _Batches(Dataset[ReadBatch]):
    def __init__(
        self, dataset: ImageDataset, make_sample: MakeSample, collate: Collate, batch_size: int
    ) -> None:
        self.dataset = dataset
        self.make_sample = make_sample
        self.collate = collate
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __getitem__(self, number: int) -> ReadBatch:
        share = self._share(number, 1)
        samples, bad_samples = read_samples(self.dataset, self.make_sample, share)
        return ReadBatch(self.collate(samples) if samples else None, bad_samples, len(share))

    def fetch_ahead(self, number: int) -> None:
        """Start fetching the files of the batches that follow one."""
        if self.dataset.fetches_ahead and (share := self._share(number + 1, FETCHED_AHEAD)):
            self.dataset.fetch_ahead(np.array(share))

    def _share(self, number: int, num_batches: int) -> range:
        first = number * self.batch_size
        return range(first, min(first + num_batches * self.batch_size, len(self.dataset)))

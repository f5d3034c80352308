"""Evaluation batches: every image once over all ranks, always in the same order."""

from collections.abc import Iterator
from typing import Any

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
from ssl_swin.data.rng import keyed_permutation


class EvalLoader(WorkerOwner):
    """Every image once over all ranks, in batches; one that cannot be read is left out."""

    def __init__(
        self, dataset: ImageDataset, make_sample: MakeSample, collate: Collate, config: LoaderConfig
    ) -> None:
        batches = FixedBatches(dataset, make_sample, collate, config)
        self.num_batches = len(batches)
        self.bad_samples: list[BadSample] = []
        self.loader = start_workers(batches, config, sampler=range(self.num_batches))

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Any]:
        for batch, bad_samples in self.loader:
            self.bad_samples += bad_samples
            if batch is not None:
                yield batch


class FixedBatches(Dataset[tuple[Any, list[BadSample]]]):
    """This rank's evaluation batches; the last may be smaller.

    The order is one fixed permutation: folders are sorted by class, and an evaluation that stops
    early should have seen images of all classes.
    """

    def __init__(
        self, dataset: ImageDataset, make_sample: MakeSample, collate: Collate, config: LoaderConfig
    ) -> None:
        order = keyed_permutation(len(dataset), "evaluation order")
        self.indices = order[config.rank :: config.world_size]
        self.dataset = dataset
        self.make_sample = make_sample
        self.collate = collate
        self.batch_size = config.batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[Any, list[BadSample]]:
        share = self.indices[number * self.batch_size : (number + 1) * self.batch_size].tolist()
        samples, bad_samples = read_samples(self.dataset, self.make_sample, share)
        return (self.collate(samples) if samples else None), bad_samples

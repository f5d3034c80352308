"""The seam between readers of images and training: loaders that know their epoch and length (L1).

A reader (`data/stream.py`, `data/folder.py`) gives loaders for one split. Every rank gets the same
number of training batches; evaluation sees each image exactly once over all ranks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ssl_swin.data.records import ImageRecord

MakeSample = Callable[[ImageRecord, int], Any]
Collate = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class Placement:
    """Where a loader runs, and what it feeds."""

    batch_size: int  # per rank
    num_workers: int  # per rank
    rank: int
    world_size: int


class Reader(Protocol):
    """Gives loaders over the images of one split."""

    classes: tuple[str, ...]
    num_samples: int
    fingerprint: str  # changes when the images do
    caveat: str  # what training on this reader cannot promise

    def describe(self) -> str:
        """Says in one line what is read."""

    def train_loader(
        self, make_sample: MakeSample, collate: Collate, placement: Placement, *, seed: int
    ) -> "EpochLoader":
        """Shuffled batches, a new order every epoch, without the last partial batch."""

    def eval_loader(
        self, make_sample: MakeSample, collate: Collate, placement: Placement
    ) -> "EpochLoader":
        """Every image once, always in the same order, dealt out over the ranks."""


class EpochLoader:
    """A loader that tells its workers which epoch it is when iteration really begins.

    Lightning calls `iter` before it knows the epoch it resumes in, so the epoch is read at the
    first `next`. It travels by shared memory, which reaches workers that persist between epochs.
    """

    def __init__(self, loader: "DataLoader[Any]", epoch_cell: Tensor, num_batches: int) -> None:
        self.loader = loader
        self.epoch_cell = epoch_cell
        self.num_batches = num_batches
        self.current_epoch: Callable[[], int] = lambda: 0

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Any]:
        self.epoch_cell.fill_(self.current_epoch())
        yield from self.loader

    @property
    def _iterator(self) -> Any:
        """What holds the worker processes, under the name by which Lightning ends them after a run.

        Left to the garbage collector, every worker would be waited for in vain for five seconds.
        """
        return self.loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: None) -> None:
        self.loader._iterator = iterator


def shared_epoch() -> Tensor:
    """Gives an integer that worker processes see change."""
    epoch = torch.zeros((), dtype=torch.int64)
    epoch.share_memory_()  # type: ignore[no-untyped-call]
    return epoch


def make_loader(
    dataset: "Dataset[Any]",
    epoch_cell: Tensor,
    placement: Placement,
    collate: Collate,
    *,
    num_batches: int,
    sampler: "Sampler[list[int]] | None" = None,
) -> EpochLoader:
    """Wraps a dataset: by batches of indices from `sampler`, or by consecutive samples without."""
    batching = (
        {"batch_size": placement.batch_size} if sampler is None else {"batch_sampler": sampler}
    )
    loader: DataLoader[Any] = DataLoader(
        dataset,
        num_workers=placement.num_workers,
        persistent_workers=placement.num_workers > 0,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # its own, so that the global stream is not consumed
        **batching,
    )
    return EpochLoader(loader, epoch_cell, num_batches)


def _one_thread(worker_id: int) -> None:
    torch.set_num_threads(1)

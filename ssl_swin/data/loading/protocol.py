"""The seam between readers of images and training.

A reader (`indexed.py`, `stream.py`) gives loaders for one split. Every rank gets the same number of
training batches; evaluation sees each image once over all ranks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from ssl_swin.data.records import ImageRecord, Source

MakeSample = Callable[[ImageRecord, int], Any]
Collate = Callable[[Sequence[Any]], Any]

MOST_TRIES = 16  # images in a row that may fail


@dataclass(frozen=True)
class Placement:
    """Where a loader runs, and what it feeds."""

    batch_size: int  # per rank
    num_workers: int  # per rank
    rank: int
    world_size: int

    @property
    def global_batch_size(self) -> int:
        """Images per batch over all ranks."""
        return self.batch_size * self.world_size


class BadSample(NamedTuple):
    """An image that could not be read, decoded or prepared."""

    name: str
    reason: str


class Loader(Protocol):
    """Batches of one split on one rank."""

    bad_samples: list[BadSample]  # found so far; whoever reports them takes them out

    def __len__(self) -> int:
        """Batches of one iteration."""

    def __iter__(self) -> Iterator[Any]:
        """Hands out batches."""


class Reader(Protocol):
    """Gives loaders over the images of one split."""

    classes: tuple[str, ...]
    num_samples: int
    fingerprint: str  # changes when the images do
    caveat: str  # what training on this reader cannot promise; empty if there is nothing

    def describe(self) -> str:
        """Says in one line what is read."""

    def train_loader(
        self, make_sample: MakeSample, collate: Collate, placement: Placement, *, seed: int
    ) -> Loader:
        """Shuffled batches, a new order every epoch, without the last partial batch."""

    def eval_loader(
        self, make_sample: MakeSample, collate: Collate, placement: Placement
    ) -> Loader:
        """Every image once, always in the same order, dealt out over the ranks."""


def start_workers(
    dataset: "Dataset[Any]",
    placement: Placement,
    *,
    sampler: Iterable[Any] | None = None,
    batch_size: int | None = None,
    collate: Collate | None = None,
) -> "DataLoader[Any]":
    """Gives torch's loader as all readers use it: its own generator, workers of one thread.

    Args:
        dataset: Gives whole batches, or with `batch_size` samples.
        placement: Says how many workers.
        sampler: What to ask a map-style dataset for.
        batch_size: Samples per batch; None if the dataset gives whole batches.
        collate: Makes a batch of samples; with `batch_size`.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=placement.num_workers,
        persistent_workers=placement.num_workers > 0,
        collate_fn=collate or _as_it_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # its own, so that the global stream is not consumed
    )


def read_sample(source: Source, make_sample: MakeSample, index: int, epoch: int) -> Any | BadSample:
    """Reads and prepares one image, or says why it cannot be."""
    name = f"image {index}"
    try:
        record = source[index]
        name = record.name
        return make_sample(record, epoch)
    except Exception as error:  # a damaged file may raise almost anything
        member_name = getattr(source, "member_name", None)
        if member_name is not None:
            name = f"{name} ({member_name(index)})"
        return BadSample(name, " ".join(str(error).split()) or type(error).__name__)


class WorkerOwner:
    """Lets Lightning end the worker processes of a wrapped loader after a run.

    It looks for `_iterator`. Left to the garbage collector, every worker would be waited for in
    vain for five seconds.
    """

    loader: "DataLoader[Any]"

    @property
    def _iterator(self) -> Any:
        return self.loader._iterator

    @_iterator.setter
    def _iterator(self, iterator: None) -> None:
        self.loader._iterator = iterator


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(worker_id: int) -> None:
    torch.set_num_threads(1)

"""What training and data agree on: splits, their loaders, and how a loader is configured.

A split (`indexed.py`, `stream.py`) makes loaders. Every rank gets the same number of training
batches; evaluation sees each image once over all ranks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.shared_memory import Shared
from ssl_swin.stopping.workers import ignore_signals, signals_held

MakeSample = Callable[[EncodedSample, int], Any]
Collate = Callable[[Sequence[Any]], Any]

MOST_TRIES = 16  # images in a row that may fail


@dataclass(frozen=True)
class LoaderConfig:
    """Size of the batches of a loader, and the rank that it runs on.

    Attributes:
        batch_size: Number of images per batch and rank.
        num_workers: Number of loading processes per rank; 0 loads in the process itself.
        rank: Number of this rank, from 0.
        world_size: Number of ranks.
    """

    batch_size: int
    num_workers: int
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
        """Yield batches."""


class Split(Protocol):
    """One split of a data set, which makes loaders over its samples.

    Attributes:
        classes: Class names by label; empty for a split without labels.
        num_samples: Number of samples.
        fingerprint: Digest that changes when the samples do.
        warning: What training on this split cannot promise; empty if there is nothing.
    """

    classes: tuple[str, ...]
    num_samples: int
    fingerprint: str
    warning: str

    def summary(self) -> str:
        """Return one line on what is read."""

    def train_loader(
        self, make_sample: MakeSample, collate: Collate, config: LoaderConfig, *, seed: int
    ) -> Loader:
        """Return shuffled batches, in a new order every epoch, without the last partial batch."""

    def eval_loader(
        self, make_sample: MakeSample, collate: Collate, config: LoaderConfig
    ) -> Loader:
        """Return every image once, in a fixed order, distributed over the ranks."""


def start_workers(
    dataset: "Dataset[Any]",
    config: LoaderConfig,
    *,
    sampler: Iterable[Any] | None = None,
    batch_size: int | None = None,
    collate: Collate | None = None,
) -> "DataLoader[Any]":
    """Return torch's loader as all splits use it: its own generator, workers of one thread.

    The workers leave signals to the process that they load for.

    Args:
        dataset: Returns whole batches, or single examples if there is a `batch_size`.
        config: Configuration of the loader; it has the number of workers.
        sampler: Keys to ask a map-style dataset for.
        batch_size: Number of examples per batch; None if the dataset returns whole batches.
        collate: Makes a batch of examples; with `batch_size`.
    """
    return _QuietLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
        collate_fn=Shared(collate or _as_it_is),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # its own, so that the global stream is not consumed
    )


def read_sample(
    dataset: ImageDataset, make_sample: MakeSample, index: int, epoch: int
) -> Any | BadSample:
    """Read one sample and make an example of it.

    Args:
        dataset: The data set.
        make_sample: Makes an example of an encoded sample and the epoch.
        index: Index of the sample in the data set.
        epoch: Number of the epoch.

    Returns:
        The example, or the reason why there is none.
    """
    name = f"image {index}"
    try:
        encoded = dataset[index]
        name = encoded.name
        return make_sample(encoded, epoch)
    except Exception as error:  # a damaged file may raise almost anything
        file_name = dataset.file_name(index)
        name += f" ({file_name})" if file_name else ""
        return BadSample(name, " ".join(str(error).split()) or type(error).__name__)


def read_samples(
    dataset: ImageDataset, make_sample: MakeSample, indices: Iterable[int]
) -> tuple[list[Any], list[BadSample]]:
    """Read samples for evaluation, where there is no epoch.

    Args:
        dataset: The data set.
        make_sample: See `read_sample`; it is given the epoch 0.
        indices: Of the samples.

    Returns:
        The examples, and what could not be read.
    """
    read = [read_sample(dataset, make_sample, index, 0) for index in indices]
    samples = [sample for sample in read if not isinstance(sample, BadSample)]
    return samples, [sample for sample in read if isinstance(sample, BadSample)]


class WorkerOwner:
    """Lets Lightning end the worker processes of a wrapped loader after a run.

    It looks for `_iterator`. Otherwise the garbage collector ends the workers, and waits in vain
    for five seconds for each of them.
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


class _QuietLoader(DataLoader[Any]):
    """A loader whose workers are not hit by a signal before they ignore it."""

    def __iter__(self) -> Any:
        with signals_held():
            return super().__iter__()


def _start_worker(worker_id: int) -> None:
    ignore_signals()
    torch.set_num_threads(1)

"""Two sources in one loader: of every batch, fixed numbers of images are of each.

Each keeps its own order and place, so that a run continues exactly.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from ssl_swin.data.loading.exact import Cursor, ExactLoader
from ssl_swin.data.loading.protocol import BadSample, Collate, LoaderConfig, MakeSample, Split

UNLABELLED = "unlabelled"  # name of such a source beside the splits of a data set


class Companion(NamedTuple):
    """A second source of training images."""

    split: Split  # read by index
    make_sample: MakeSample
    collate: Collate
    batch_size: int  # images per device, besides those of the first source
    join: Callable[[Any, Any], Any]  # makes one batch of a batch of each


class PairedLoader:
    """Batches of two exact loaders, joined; an epoch is a pass over the second source."""

    def __init__(
        self, first: ExactLoader, second: ExactLoader, join: Callable[[Any, Any], Any]
    ) -> None:
        """Put two loaders together; nothing is read yet.

        Args:
            first: Runs on through its own epochs.
            second: Has as many batches as this loader.
            join: Makes one batch of a batch of each.
        """
        self.first = first
        self.second = second
        self.join = join
        self.bad_samples: list[BadSample] = []

    def __len__(self) -> int:
        return len(self.second)

    def __iter__(self) -> Iterator[Any]:
        for _ in range(len(self)):
            batch = self.join(self.first.advance(), self.second.advance())
            for loader in (self.first, self.second):
                self.bad_samples += loader.bad_samples
                loader.bad_samples.clear()
            yield batch

    def go_to_epoch(self, epoch: int) -> None:
        """Make an epoch's first batch the next one, where the first source has run on."""
        self.second.go_to(Cursor(epoch, 0))
        passes, batches = divmod(epoch * len(self), len(self.first))
        self.first.go_to(Cursor(passes, batches * self.first.config.global_batch_size))

    @property
    def _iterator(self) -> Any:
        """The workers of one loader, under the name by which Lightning finds and ends them."""
        return self.second._iterator

    @_iterator.setter
    def _iterator(self, iterator: None) -> None:
        self.second._iterator = iterator
        workers: Any = self.first._iterator
        if hasattr(workers, "_shutdown_workers"):
            workers._shutdown_workers()
        self.first._iterator = None


def shared_out(config: LoaderConfig, batch_size: int) -> tuple[LoaderConfig, LoaderConfig]:
    """Share loading processes out between two sources, by the number of their images.

    Args:
        config: Of the first source, with all processes.
        batch_size: Images per device of the second one.

    Returns:
        Of the first and of the second; a single process loads the second.
    """
    number = config.num_workers
    share = batch_size / (config.batch_size + batch_size)
    of_second = min(max(round(number * share), min(number, 1)), max(number - 1, min(number, 1)))
    first = replace(config, num_workers=number - of_second)
    return first, replace(config, num_workers=of_second, batch_size=batch_size)

"""The same few batches over and over: whether a model can learn them by heart."""

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

from ssl_swin.data.loading.protocol import BadSample, Loader


class RepeatingLoader:
    """The first batches of another loader, as they were made the first time: views and masks too.

    They stay in memory. Nothing of it depends on where a run is, so that there is no place in the
    data to save.
    """

    def __init__(self, loader: Loader, num_batches: int) -> None:
        """Sets the loader up; nothing is read yet.

        Args:
            loader: Makes the batches.
            num_batches: How many of them are repeated.
        """
        self.loader = loader
        self.num_batches = num_batches
        self.bad_samples: list[BadSample] = loader.bad_samples  # the very list, which it adds to
        self._batches: list[Any] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        if not self._batches:
            self._batches = list(islice(self.loader, self.num_batches))
        return islice(cycle(self._batches), len(self))

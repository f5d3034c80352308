"""Several data sets as one, one after the other."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import ImageDataset, Indices
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.fingerprint import fingerprint


class Together(ImageDataset):
    """All splits of a set in their order, each sample named SPLIT/NAME."""

    def __init__(self, splits: Mapping[str, ImageDataset]) -> None:
        """Put the splits together.

        Args:
            splits: At least one, by name, with the same classes.
        """
        self.splits = dict(splits)
        self._names = list(splits)
        self._starts = np.cumsum([0, *map(len, splits.values())])
        self.classes = next(iter(splits.values())).classes
        parts = [part for name, each in splits.items() for part in (name, each.fingerprint)]
        self.fingerprint = fingerprint(parts)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> EncodedSample:
        split, within = self._place(index)
        sample = self.splits[split][within]
        return replace(sample, name=f"{split}/{sample.name}")

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that a sample of one of them may hold, "image" first."""
        return tuple(dict.fromkeys(name for each in self.splits.values() for name in each.members))

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every sample, -1 for none."""
        return np.concatenate([each.labels() for each in self.splits.values()])

    def image_sizes(self) -> NDArray[np.int64] | None:
        """Return the bytes of every image's file, if all are known."""
        sizes = [each.image_sizes() for each in self.splits.values()]
        known = [each for each in sizes if each is not None]
        return np.concatenate(known) if len(known) == len(sizes) else None

    def advise(self, indices: Indices) -> None:
        """Start reading samples that will be asked for next."""
        for split, within in self._by_split(indices):
            self.splits[split].advise(within)

    def fetch_ahead(self, indices: Indices) -> None:
        """Start fetching the files of samples that will be needed."""
        for split, within in self._by_split(indices):
            self.splits[split].fetch_ahead(within)

    @property
    def fetches_ahead(self) -> bool:
        """Whether `fetch_ahead` has an effect for one of them."""
        return any(each.fetches_ahead for each in self.splits.values())

    def file_name(self, index: int) -> str:
        """Return the name of a sample's image file for messages."""
        split, within = self._place(index)
        return self.splits[split].file_name(within)

    def _place(self, index: int) -> tuple[str, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._names[number], index - int(self._starts[number])

    def _by_split(self, indices: Indices) -> list[tuple[str, Indices]]:
        numbers = np.searchsorted(self._starts, indices, side="right") - 1
        return [
            (self._names[number], indices[numbers == number] - self._starts[number])
            for number in np.unique(numbers).tolist()
        ]

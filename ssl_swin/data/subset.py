"""Some samples of a data set, as a data set."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import DatasetWrapper, ImageDataset, Indices
from ssl_swin.data.encoded import EncodedSample


class Subset(DatasetWrapper):
    """Some samples of a data set, in a given order."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int] | Indices) -> None:
        """Choose the samples.

        Args:
            dataset: The whole data set.
            indices: Indices of the chosen samples in the whole data set.
        """
        super().__init__(dataset)
        self.indices = np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> EncodedSample:
        return self.dataset[int(self.indices[index])]

    @property
    def shard_lengths(self) -> Indices | None:
        """Numbers of chosen samples in each file; None unless they are in the files' order."""
        lengths = self.dataset.shard_lengths
        if lengths is None or (np.diff(self.indices) < 0).any():
            return None
        shards = np.searchsorted(np.cumsum(lengths), self.indices, side="right")
        return np.bincount(shards, minlength=len(lengths))

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every chosen sample, -1 for none."""
        return self.dataset.labels()[self.indices]

    def image_sizes(self) -> NDArray[np.int64] | None:
        """Return the bytes of every chosen image's file, if they are known."""
        sizes = self.dataset.image_sizes()
        return None if sizes is None else sizes[self.indices]

    def advise(self, indices: Indices) -> None:
        """Start reading samples that will be asked for next."""
        self.dataset.advise(self.indices[indices])

    def fetch_ahead(self, indices: Indices) -> None:
        """Start fetching the files of samples that will be needed."""
        self.dataset.fetch_ahead(self.indices[indices])

    def file_name(self, index: int) -> str:
        """Return the name of a sample's image file for messages."""
        return self.dataset.file_name(int(self.indices[index]))

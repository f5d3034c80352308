"""The base class of data sets that are read by index."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.encoded import IMAGE, EncodedSample
from ssl_swin.display.work import followed

Indices = NDArray[np.int64]

NO_LABEL = -1


class ImageDataset(ABC):
    """Encoded samples by index: read-only, and picklable because worker processes get a copy.

    A data set must say what it holds and read a sample. What it may be able to do besides has a
    default here, and a wrapper of another data set forwards all of it.

    Attributes:
        classes: Class names by label; empty for a data set without labels.
        fingerprint: 16 hex digits that change when the list of samples does.
    """

    classes: tuple[str, ...]
    fingerprint: str

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> EncodedSample:
        """Read the sample at `index` in [0, len)."""

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that a sample may hold, "image" first."""
        return (IMAGE,)

    @property
    def shard_lengths(self) -> Indices | None:
        """Numbers of samples that lie together in a file, in order; None without such files."""
        return None

    @property
    def fetches_ahead(self) -> bool:
        """Whether `fetch_ahead` has an effect, so that its argument is worth computing."""
        return False

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every sample, -1 for none; by default this reads every sample."""
        indices = followed(range(len(self)), "reading labels", len(self))
        labels = (self[index].label for index in indices)
        return np.array([NO_LABEL if label is None else label for label in labels], dtype=np.int64)

    def image_sizes(self) -> NDArray[np.int64] | None:
        """Return the bytes of every image's file; None where that would mean reading much."""
        return None

    def advise(self, indices: Indices) -> None:
        """Start reading samples that will be asked for next; a hint, without effect by default."""
        return

    def fetch_ahead(self, indices: Indices) -> None:
        """Start fetching the files of samples that will be needed; by default without effect."""
        return

    def file_name(self, index: int) -> str:
        """Return the name of a sample's image file for messages; "" if `name` says all."""
        return ""


class DatasetWrapper(ImageDataset):
    """All samples of another data set; a base class for those that change some of it."""

    def __init__(self, dataset: ImageDataset) -> None:
        """Wrap a data set.

        Args:
            dataset: The data set, to which everything is forwarded.
        """
        self.dataset = dataset
        self.classes = dataset.classes
        self.fingerprint = dataset.fingerprint

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> EncodedSample:
        return self.dataset[index]

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that a sample may hold, "image" first."""
        return self.dataset.members

    @property
    def shard_lengths(self) -> Indices | None:
        """Numbers of samples that lie together in a file, in order; None without such files."""
        return self.dataset.shard_lengths

    @property
    def fetches_ahead(self) -> bool:
        """Whether `fetch_ahead` has an effect."""
        return self.dataset.fetches_ahead

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every sample, -1 for none."""
        return self.dataset.labels()

    def image_sizes(self) -> NDArray[np.int64] | None:
        """Return the bytes of every image's file, if they are known."""
        return self.dataset.image_sizes()

    def advise(self, indices: Indices) -> None:
        """Start reading samples that will be asked for next."""
        self.dataset.advise(indices)

    def fetch_ahead(self, indices: Indices) -> None:
        """Start fetching the files of samples that will be needed."""
        self.dataset.fetch_ahead(indices)

    def file_name(self, index: int) -> str:
        """Return the name of a sample's image file for messages."""
        return self.dataset.file_name(index)

"""Few labels: a part of the labelled images with all classes in it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ssl_swin.data.loading.indexed import IndexedReader, SourcePart
from ssl_swin.data.loading.order import Samples
from ssl_swin.data.loading.protocol import Reader
from ssl_swin.data.records import Source, fingerprint
from ssl_swin.data.rng import keyed_permutation
from ssl_swin.data.shards.source import ShardSource
from ssl_swin.data.sources.image_folder import FolderSource
from ssl_swin.errors import UserError

_UNLABELLED = -1


@dataclass(frozen=True)
class FewLabels:
    """How many images of each class to keep, and which.

    A larger part with the same seed contains the smaller ones.

    Attributes:
        ratio: Share of each class, in (0, 1], rounded to whole images and at least one.
        per_class: Images of each class; instead of `ratio`.
        seed: Of the choice.
    """

    ratio: float | None = None
    per_class: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ratio is not None and self.per_class is not None:
            raise UserError(
                f"labels.ratio={self.ratio} and labels.per_class={self.per_class} are two answers "
                "to one question: set one to null"
            )
        if self.ratio is not None and not 0.0 < self.ratio <= 1.0:
            raise UserError(f"labels.ratio must lie in (0, 1], got {self.ratio}")
        if self.per_class is not None and not (
            isinstance(self.per_class, int) and self.per_class > 0
        ):
            raise UserError(f"labels.per_class must be a whole number from 1, got {self.per_class}")

    def choose(self, labels: NDArray[np.int64], classes: tuple[str, ...]) -> Samples:
        """Chooses images, evenly over the classes.

        Args:
            labels: Of all images; a negative one has none, and is never chosen.
            classes: Names by label.

        Returns:
            Their numbers, int64, ascending.

        Raises:
            UserError: If a class has fewer images than asked for.
        """
        chosen = [self._of_class(labels, label, name) for label, name in enumerate(classes)]
        return np.sort(np.concatenate(chosen))

    def _of_class(self, labels: NDArray[np.int64], label: int, name: str) -> Samples:
        images = np.flatnonzero(labels == label)
        if self.ratio is not None:
            wanted = max(1, round(self.ratio * len(images)))
        else:
            wanted = len(images) if self.per_class is None else self.per_class
        if wanted > len(images):
            raise UserError(
                f"class {name!r} has {len(images)} training images, fewer than the {wanted} of "
                f"labels.{'ratio' if self.per_class is None else 'per_class'}"
            )
        return images[keyed_permutation(len(images), "few labels", self.seed, name)[:wanted]]


class LabelledPart(SourcePart):
    """Some of a source's images, with a fingerprint of which."""

    def __init__(self, source: Source, indices: Samples) -> None:
        """Takes the images of `indices`, int64, in that order."""
        super().__init__(source, indices.tolist())
        self.fingerprint = fingerprint((source.fingerprint,), indices.tobytes())

    def fetch_ahead(self, indices: Samples) -> None:
        """Passes on which images are next, to a source that fetches them."""
        if (fetch_ahead := getattr(self.source, "fetch_ahead", None)) is not None:
            fetch_ahead(np.asarray(self.indices)[indices])


def keep_few_labels(reader: Reader, few: FewLabels) -> Reader:
    """Reduces a reader to a part of its labelled images.

    Args:
        reader: Of the training split.
        few: How many, and which.

    Returns:
        The reader itself if nothing is to be left out.

    Raises:
        UserError: If images cannot be read by number, or a class has too few.
    """
    if few.ratio is None and few.per_class is None:
        return reader
    if not isinstance(reader, IndexedReader):
        raise UserError(
            "labels.ratio and labels.per_class choose images by number, which "
            "data.reader=stream cannot read: use indexed or folder"
        )
    chosen = few.choose(labels_of(reader.source), reader.classes)
    return IndexedReader(LabelledPart(reader.source, chosen), reader.order, reader.caveat)


def labels_of(source: Source) -> NDArray[np.int64]:
    """Gives the label of every image, -1 for none; reads the images only if nothing lists them."""
    if isinstance(source, SourcePart):
        return labels_of(source.source)[np.asarray(source.indices, dtype=np.int64)]
    if isinstance(source, ShardSource | FolderSource):
        return source.labels()
    numbers = tqdm(range(len(source)), "reading labels", disable=None)
    labels = (source[number].label for number in numbers)
    return np.array([_UNLABELLED if label is None else label for label in labels], dtype=np.int64)

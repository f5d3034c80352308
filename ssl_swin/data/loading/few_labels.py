"""Few labels: a part of the labelled images with all classes in it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_swin.arguments import Count, Portion, Positive, checked
from ssl_swin.data.dataset import DatasetWrapper, ImageDataset, Indices
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.protocol import Split
from ssl_swin.data.rng import keyed_permutation
from ssl_swin.data.subset import Subset
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted


@checked
@dataclass(frozen=True)
class FewLabels:
    """How many images of each class to keep, and which.

    A larger part with the same seed contains the smaller ones.

    Attributes:
        ratio: Share of each class, in (0, 1], rounded to whole images and at least one.
        per_class: Number of images of each class; instead of `ratio`.
        seed: Seed of the choice.
    """

    ratio: Portion | None = None
    per_class: Positive | None = None
    seed: Count = 0

    def __post_init__(self) -> None:
        if self.ratio is not None and self.per_class is not None:
            raise UserError(
                f"labels.ratio={self.ratio} and labels.per_class={self.per_class} are two answers "
                "to one question: set one to null"
            )

    def choose(self, labels: NDArray[np.int64], classes: tuple[str, ...]) -> Indices:
        """Choose images, evenly over the classes.

        Args:
            labels: Labels of all images; a negative one means none and is never chosen.
            classes: Class names by label.

        Returns:
            Indices of the chosen images, int64, ascending.

        Raises:
            UserError: If there are no classes, or one has fewer images than asked for.
        """
        if not classes:
            raise UserError(
                "labels.ratio and labels.per_class choose images by class, and the data names no "
                "class: set both to null"
            )
        chosen = [self._of_class(labels, label, name) for label, name in enumerate(classes)]
        return np.sort(np.concatenate(chosen))

    def _of_class(self, labels: NDArray[np.int64], label: int, name: str) -> Indices:
        images = np.flatnonzero(labels == label)
        if self.ratio is not None:
            wanted = max(1, round(self.ratio * len(images)))
        else:
            wanted = len(images) if self.per_class is None else self.per_class
        if wanted > len(images):
            raise UserError(
                f"class {name!r} has {counted(len(images), 'training image')}, fewer than "
                f"the {wanted} of labels.{'ratio' if self.per_class is None else 'per_class'}"
            )
        return images[keyed_permutation(len(images), "few labels", self.seed, name)[:wanted]]


@checked
@dataclass(frozen=True)
class FewImages:
    """How many images of a set to keep, whatever they show, and which.

    A larger part with the same seed contains the smaller ones.

    Attributes:
        ratio: Share of the images, in (0, 1], rounded to whole ones and at least one.
        number: Number of images; instead of `ratio`.
        seed: Seed of the choice.
    """

    ratio: Portion | None = None
    number: Positive | None = None
    seed: Count = 0

    def __post_init__(self) -> None:
        if self.ratio is not None and self.number is not None:
            raise UserError(
                f"labels.ratio={self.ratio} and labels.number={self.number} are two answers to one "
                "question: set one to null"
            )

    def choose(self, num_images: int) -> Indices:
        """Choose images.

        Args:
            num_images: How many there are.

        Returns:
            Indices of the chosen images, int64, ascending.

        Raises:
            UserError: If there are fewer than asked for.
        """
        wanted = num_images if self.number is None else self.number
        if self.ratio is not None:
            wanted = max(1, round(self.ratio * num_images))
        if wanted > num_images:
            raise UserError(
                f"there are {counted(num_images, 'training image')}, fewer than the {wanted} of "
                "labels.number"
            )
        return np.sort(keyed_permutation(num_images, "few images", self.seed)[:wanted])


def keep_few_images(split: Split, few: FewImages) -> Split:
    """Reduce a split to a part of its images; see `keep_few_labels`."""
    if few.ratio is None and few.number is None:
        return split
    if not isinstance(split, IndexedSplit):
        raise UserError(
            "labels.ratio and labels.number choose images by number, which data.reader=stream "
            "cannot read: use indexed or folder"
        )
    chosen = few.choose(split.num_samples)
    return IndexedSplit(LabelledSubset(split.dataset, chosen), split.order, split.warning)


def left_out_images(kept: Split) -> Split:
    """Return what `keep_few_images` has left out: images whose labels are not to be used.

    Args:
        kept: What it returned.

    Raises:
        UserError: If nothing was left out.
    """
    few = kept.dataset if isinstance(kept, IndexedSplit) else None
    if not isinstance(few, LabelledSubset) or len(few) == len(few.dataset):
        raise UserError(
            "labels.ratio and labels.number leave no image out, to learn from without its boxes: "
            "give labels.ratio=0.1, or say where images without boxes are with "
            "semi.unlabelled_root=PATH"
        )
    assert isinstance(kept, IndexedSplit)
    others = np.setdiff1d(np.arange(len(few.dataset)), few.indices)
    return IndexedSplit(LabelledSubset(few.dataset, others), kept.order, kept.warning)


class LabelledSubset(Subset):
    """Some samples of a data set, with a fingerprint that covers which."""

    def __init__(self, dataset: ImageDataset, indices: Indices) -> None:
        """Choose the samples.

        Args:
            dataset: The whole data set.
            indices: Indices of the chosen samples, int64, ascending.
        """
        super().__init__(dataset, indices)
        names = [dataset.fingerprint]
        if self.shard_lengths is not None:
            names.append("in the order of shards")  # unlike version 0.1.0, which forgot the shards
        self.fingerprint = fingerprint(names, self.indices.tobytes())


def keep_few_labels(split: Split, few: FewLabels) -> Split:
    """Reduce a split to a part of its labelled images.

    Args:
        split: The training split.
        few: How many images to keep, and which.

    Returns:
        The split itself if nothing is to be left out.

    Raises:
        UserError: If samples cannot be read by index, or a class has too few.
    """
    if few.ratio is None and few.per_class is None:
        return split
    if not isinstance(split, IndexedSplit):
        raise UserError(
            "labels.ratio and labels.per_class choose images by number, which "
            "data.reader=stream cannot read: use indexed or folder"
        )
    chosen = few.choose(split.dataset.labels(), split.classes)
    return IndexedSplit(LabelledSubset(split.dataset, chosen), split.order, split.warning)


def keep_labelled(split: Split) -> Split:
    """Reduce a split to its images with a label.

    Args:
        split: A split; one that is streamed, or would have to be read for its labels, stays as it
            is.

    Returns:
        The split itself if nothing is to be left out.
    """
    if not isinstance(split, IndexedSplit) or not _lists_labels(split.dataset):
        return split
    labels = split.dataset.labels()
    if (labels >= 0).all() or (labels < 0).all():
        return split
    labelled = LabelledSubset(split.dataset, np.flatnonzero(labels >= 0))
    return IndexedSplit(labelled, split.order, split.warning)


def is_without_labels(split: Split) -> bool:
    """Return whether no image of a split has a label; false where all would have to be read.

    Args:
        split: A split, whose data may name classes of masks or boxes.
    """
    if not isinstance(split, IndexedSplit) or not _lists_labels(split.dataset):
        return False
    return bool((split.dataset.labels() < 0).all())


def _lists_labels(dataset: ImageDataset) -> bool:
    """Return whether labels are known without reading every sample."""
    while isinstance(dataset, DatasetWrapper) and type(dataset).labels in _FORWARDING:
        dataset = dataset.dataset
    return type(dataset).labels is not ImageDataset.labels


_FORWARDING = (DatasetWrapper.labels, Subset.labels)

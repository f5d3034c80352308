"""Labels given to images without any, or taken from images that have them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import NO_LABEL, DatasetWrapper, ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.sources.archives import TarDataset
from ssl_swin.data.sources.image_folder import FolderDataset
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted


class RelabelledDataset(DatasetWrapper):
    """A data set with other labels, or without any."""

    def __init__(
        self,
        dataset: ImageDataset,
        classes: tuple[str, ...] = (),
        labels: NDArray[np.int32] | None = None,
    ) -> None:
        """Wrap a data set.

        Args:
            dataset: The samples.
            classes: Class names by label.
            labels: Labels by sample, -1 for none; None leaves all labels out.
        """
        super().__init__(dataset)
        self.classes = classes
        self._labels = labels
        content = b"" if labels is None else labels.tobytes()
        self.fingerprint = fingerprint((dataset.fingerprint, *classes), content)

    def __getitem__(self, index: int) -> EncodedSample:
        label = NO_LABEL if self._labels is None else int(self._labels[index])
        return self.dataset[index].with_label(None if label == NO_LABEL else label)

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every sample, -1 for none."""
        if self._labels is None:
            return np.full(len(self), NO_LABEL, dtype=np.int64)
        return self._labels.astype(np.int64)


def label_by_name(
    source: ImageDataset, file: Path, classes: tuple[str, ...] = ()
) -> RelabelledDataset:
    """Label images by a list in the order of their sorted names.

    Args:
        source: A folder or tar of images.
        file: One class name per line, as ILSVRC2012's validation labels are distributed.
        classes: Class names by label; none takes the sorted names in `file`.

    Raises:
        UserError: If the list has another length or unknown classes, or `source` is no such thing.
    """
    if not isinstance(source, FolderDataset | TarDataset):
        raise UserError("labels by name are for images in a folder or a tar")
    names = _read_lines(file)
    if len(names) != len(source):
        raise UserError(
            f"{file} has {counted(len(names), 'line')} for {counted(len(source), 'image')}"
        )
    classes = classes or tuple(sorted(set(names)))
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise UserError(
            f"{file} has {counted(len(unknown), 'class')} that train has not, the first "
            f"is {unknown[0]!r}. It must have one name a line, such as {classes[0]}"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.empty(len(names), np.int32)
    labels[np.argsort(source.image_names())] = [label_of[name] for name in names]
    return RelabelledDataset(source, classes, labels)


def _read_lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the labels in {file}: {error}") from error

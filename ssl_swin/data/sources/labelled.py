"""Labels put on images that come without, or taken from images that come with them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.records import ImageRecord, Source, fingerprint
from ssl_swin.data.sources.archives import TarSource
from ssl_swin.data.sources.image_folder import FolderSource
from ssl_swin.errors import UserError


class LabelledSource:
    """A source with other labels, or without any."""

    def __init__(
        self, source: Source, classes: tuple[str, ...] = (), labels: NDArray[np.int32] | None = None
    ) -> None:
        """Wraps a source.

        Args:
            source: The images.
            classes: Names by label.
            labels: By image; None leaves them out.
        """
        self.source = source
        self.classes = classes
        self.labels = labels
        content = b"" if labels is None else labels.tobytes()
        self.fingerprint = fingerprint((source.fingerprint, *classes), content)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> ImageRecord:
        label = None if self.labels is None else int(self.labels[index])
        return self.source[index]._replace(label=label)


def label_by_name(source: Source, file: Path, classes: tuple[str, ...] = ()) -> LabelledSource:
    """Labels images by a list in the order of their sorted names.

    Args:
        source: A folder or tar of images.
        file: One class name per line, the form in which ILSVRC2012's validation labels go around.
        classes: Names by label; none takes the sorted names in `file`.

    Raises:
        UserError: If the list has another length or unknown classes, or `source` is no such thing.
    """
    if not isinstance(source, FolderSource | TarSource):
        raise UserError("labels by name are for images in a folder or a tar")
    names = _read_lines(file)
    if len(names) != len(source):
        raise UserError(f"{file} has {len(names)} lines, but there are {len(source)} images")
    classes = classes or tuple(sorted(set(names)))
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise UserError(
            f"{file} has {len(unknown)} classes that train has not, the first is {unknown[0]!r}. "
            f"It must have one name a line, such as {classes[0]}"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.empty(len(names), np.int32)
    labels[np.argsort(source.image_names())] = [label_of[name] for name in names]
    return LabelledSource(source, classes, labels)


def _read_lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the labels in {file}: {error}") from error

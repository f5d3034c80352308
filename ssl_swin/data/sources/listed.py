"""Images that a list names: a text file of paths, or a table with a column of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import NO_LABEL, ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.file_sizes import file_sizes
from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of, extension_of_content
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.sources.left_out import is_known_image
from ssl_swin.data.sources.table_files import read_table
from ssl_swin.data.sources.table_roles import IMAGE_COLUMNS, LABEL_COLUMNS, usual_columns
from ssl_swin.errors import UserError

LIST_EXTENSIONS = ("txt", "csv", "tsv")
MOST_TRIED = 100  # paths of which one has to be a file


class ListedDataset(ImageDataset):
    """Image files in the order of a list, each named as there; paths are relative to the list."""

    def __init__(self, path: Path, labelled: bool = True) -> None:
        """Read the list; no image is opened.

        Args:
            path: A `.txt` file of a path a line, or a `.csv` or `.tsv` table with a usual column of
                images, and of labels if need be.
            labelled: Whether to take labels from it.

        Raises:
            UserError: If it names no image, one twice, or the first hundred are not there.
        """
        self.folder = path.parent
        is_text = extension_of(path.name) == "txt"
        self._names, labels, self.classes_from = _of_lines(path) if is_text else _of_table(path)
        _check_each_once(self._names, path)
        _check_any_is_there(self._names, path)
        self.classes = tuple(sorted({*labels} - {""})) if labelled else ()
        label_of = {name: label for label, name in enumerate(self.classes)}
        found = [label_of.get(label, NO_LABEL) for label in labels or [""] * len(self._names)]
        self._labels = np.array(found, np.int64)
        self.fingerprint = fingerprint((*self.classes, *self._names), self._labels.tobytes())

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> EncodedSample:
        name = self._names[index]
        data = (self.folder / name).read_bytes()
        extension = extension_of(name)
        if extension not in IMAGE_EXTENSIONS:
            extension = extension_of_content(data)
        label = int(self._labels[index])
        return EncodedSample.of_image(data, extension, None if label == NO_LABEL else label, name)

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every image, -1 for none; no image is read."""
        return self._labels

    def image_sizes(self) -> NDArray[np.int64] | None:
        """Return the bytes of every image's file; None of more than 100,000 files."""
        return file_sizes(len(self), (self.folder / name for name in self._names))

    def file_name(self, index: int) -> str:
        """Return the name of an image as the list has it."""
        return self._names[index]


def _of_lines(path: Path) -> tuple[list[str], list[str], str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from error
    return [line for line in lines if line], [], f"{path} holds paths alone"


def _of_table(path: Path) -> tuple[list[str], list[str], str]:
    """Return names, labels, and where these are from or why there are none."""
    table = read_table(path)
    usual = usual_columns(table, IMAGE_COLUMNS)
    if not usual and len(table.columns) == 1 and is_known_image(table.columns[0]):
        return [table.columns[0], *table.column(table.columns[0])], [], f"{path} holds paths alone"
    if not usual:
        raise UserError(
            f"{path} has no column of images called image, filename, path or the like, only: "
            f"{', '.join(table.columns[:12])}"
        )
    labels = [name for name in usual_columns(table, LABEL_COLUMNS) if name != usual[0]]
    if not labels:
        return table.column(usual[0]), [], f"{path} has no column called label, class or the like"
    return table.column(usual[0]), table.column(labels[0]), f"the column {labels[0]} of {path}"


def _check_each_once(names: list[str], path: Path) -> None:
    if not names:
        raise UserError(f"{path} names no image: put a path on each line")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{path} names {name} twice; each image can be in a list once")
        seen.add(name)


def _check_any_is_there(names: list[str], path: Path) -> None:
    try:
        if any((path.parent / name).is_file() for name in names[:MOST_TRIED]):
            return
    except (OSError, ValueError):  # names that no disk takes
        pass
    first = f"{names[0]:.80}"
    raise UserError(
        f"{path} is no list of images: there is no file {path.parent / first}. A list has a path "
        "on each line, absolute or relative to the folder of the list"
    )

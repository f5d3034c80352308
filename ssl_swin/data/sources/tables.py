"""Images in the rows of tables: parquet files and Hugging Face data sets on disk."""

import errno
import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.file_types import extension_of_content
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.sources.table_columns import (
    NO_LABEL,
    class_names,
    image_column,
    is_number,
    label_column,
    number_labels,
    unread_label_columns,
)
from ssl_swin.data.sources.table_rows import ArrowRows, ParquetRows, Rows
from ssl_swin.data.split_names import SPLIT_NAMES, split_in_name
from ssl_swin.display.work import followed
from ssl_swin.errors import UserError
from ssl_swin.quoting import shell_path


class TableDataset(ImageDataset):
    """Images in one column of some tables.

    An image is a struct of `bytes` and `path`, as Hugging Face stores it, or plain bytes. A label
    is a number that the schema has names for; else the sorted values, numbers or texts, are the
    classes.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        kind: type[ArrowRows | ParquetRows],
        labelled: bool = True,
    ) -> None:
        """Read the labels.

        Args:
            root: A folder above all tables.
            files: The tables, in order, with the same columns.
            kind: Class that reads a table.
            labelled: Whether to return labels.

        Raises:
            UserError: If pyarrow is absent, a table is damaged, there is no column of images or no
                row, or labels are of no use.
        """
        self._files = tuple(files)
        self._kind = kind
        schema = kind(files[0]).schema
        self._column = image_column(schema, files[0])
        self._label_column = label_column(schema) if labelled else None
        self.unread_labels = unread_label_columns(schema) if labelled else []
        shown = followed(files, "reading tables", len(files), "files")
        listed = [self._list(file) for file in shown]
        self._ends = np.cumsum([len(values) for values in listed], dtype=np.int64)
        if not len(self):
            raise UserError(f"no images in {root}: its tables have no rows")
        names = class_names(schema, self._label_column)
        self.classes, self._labels = number_labels(np.concatenate(listed), names, root)
        sizes = [file.stat().st_size for file in files]
        listing = f"{self._ends.tolist()} {sizes}".encode() + self._labels.tobytes()
        self._names = tuple(file.relative_to(root).as_posix() for file in files)
        self.fingerprint = fingerprint((*self.classes, *self._names), listing)
        self._open: OrderedDict[int, Rows] = OrderedDict()
        self._process = os.getpid()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> EncodedSample:
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        value = self._rows(number).value(self._column, index - start)
        name = f"{self._names[number]}:{index - start}"
        data = _image_bytes(value, name)
        label = int(self._labels[index])
        extension = extension_of_content(data) or "bin"
        return EncodedSample.of_image(data, extension, None if label == NO_LABEL else label, name)

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every image, -1 for none; no image is read."""
        return self._labels.astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def unpacked(self, folder: Path) -> "TableDataset":
        """Return the same images for quick reading one by one.

        A parquet file is made to be read from front to back: one image costs a whole row group. Its
        images are therefore written to Arrow files, which takes their size once more on disk.

        Args:
            folder: Folder for the Arrow files; those that it has are taken for done.

        Raises:
            UserError: If a table is damaged or `folder` cannot be written to.
        """
        if self._kind is ArrowRows:
            return self
        copy = object.__new__(TableDataset)
        copy.__dict__ |= self.__getstate__()
        copy._kind, copy._files = ArrowRows, tuple(folder / f"{n}.arrow" for n in self._names)
        pairs = zip(self._files, copy._files, strict=True)
        for file, arrow in followed(pairs, "unpacking", len(self._files), "files"):
            if not arrow.exists():
                ParquetRows(file).unpack(self._column, arrow)
        return copy

    def _list(self, file: Path) -> NDArray[Any]:
        """Return the labels of one table, -1 or "" for none."""
        rows = self._kind(file)
        for column in filter(None, (self._column, self._label_column)):
            if column not in rows.schema.names:
                raise UserError(f"{file} has no column {column!r}, unlike {self._files[0]}")
        if self._label_column is None:
            return np.full(len(rows), NO_LABEL)
        values = rows.values(self._label_column).to_pylist()
        if is_number(rows.schema.field(self._label_column)):
            return np.array([NO_LABEL if value is None else value for value in values], np.int64)
        return np.array([(value or "").encode() for value in values], np.bytes_)

    def _rows(self, number: int) -> Rows:
        if self._process != os.getpid():  # a forked process shares the positions of open files
            self._open, self._process = OrderedDict(), os.getpid()
        if number not in self._open:
            if len(self._open) == self._kind.most_open:
                self._open.popitem(last=False)
            self._open[number] = self._kind(self._files[number])
        self._open.move_to_end(number)
        return self._open[number]


def open_parquet(root: Path, files: Sequence[Path], labelled: bool) -> dict[str, TableDataset]:
    """Open parquet files by split, which a word of the path below `root` says, or else is train.

    Hugging Face names them `train-00000-of-00041.parquet` or `train/0000.parquet`.

    Raises:
        UserError: As `TableDataset`; also if there are splits but no train.
    """
    splits: dict[str, list[Path]] = {}
    for file in sorted(files):
        split = split_in_name(file.relative_to(root).as_posix()) or "train"
        splits.setdefault(split, []).append(file)
    return {
        split: TableDataset(root, tables, ParquetRows, labelled) for split, tables in splits.items()
    }


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `save_to_disk` of Hugging Face's `datasets` wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def open_saved_dataset(root: Path, labelled: bool) -> dict[str, TableDataset]:
    """Open what `DatasetDict.save_to_disk` or `Dataset.save_to_disk` (then it is train) wrote.

    Raises:
        UserError: As `TableDataset`; also if the description is damaged, or names splits other than
            train, validation and test.
    """
    if not (root / "dataset_dict.json").is_file():
        return {"train": _open_saved(root, labelled)}
    names = _read_json(root / "dataset_dict.json", "splits")
    splits = {SPLIT_NAMES.get(name): name for name in names}
    if None in splits or len(splits) < len(names):
        raise UserError(
            f"{root} has the splits {', '.join(names)}; packing knows train, validation and test. "
            f"Pack one on its own: ssl-swin pack {shell_path(root / names[0])} OUT"
        )
    return {split: _open_saved(root / name, labelled) for split, name in splits.items() if split}


def _open_saved(folder: Path, labelled: bool) -> TableDataset:
    names = [entry["filename"] for entry in _read_json(folder / "state.json", "_data_files")]
    files = [folder / Path(name).name for name in names]
    if not files:
        raise UserError(f"no images in {folder}: its state.json lists no tables")
    return TableDataset(folder, files, ArrowRows, labelled)


def _read_json(path: Path, key: str) -> list[Any]:
    try:
        return list(json.loads(path.read_bytes())[key])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"cannot read {path} ({type(error).__name__}: {error})") from error


def _image_bytes(value: Any, name: str) -> bytes:
    content = value.as_py()
    data = content.get("bytes") if isinstance(content, dict) else content
    if data is None:
        path = content.get("path") if isinstance(content, dict) else None
        raise OSError(errno.ENODATA, f"the table has no bytes of it, only the path {path}", name)
    return bytes(data)

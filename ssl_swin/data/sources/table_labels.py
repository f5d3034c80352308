"""Labels of images taken from a table beside them."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import NO_LABEL, ImageDataset
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.shards.labels import understand_values
from ssl_swin.data.sources.archives import TarDataset
from ssl_swin.data.sources.image_folder import FolderDataset
from ssl_swin.data.sources.labelled import RelabelledDataset
from ssl_swin.data.sources.table_files import TextTable, read_table
from ssl_swin.data.sources.table_matching import ImagePaths
from ssl_swin.data.sources.table_roles import (
    NO_COLUMN,
    USUAL_COLUMNS,
    ColumnNames,
    image_column,
    label_column,
    label_texts,
    splits_column,
)
from ssl_swin.data.subset import Subset
from ssl_swin.errors import UserError


class LabelledSources(NamedTuple):
    """Data sets with the labels of a table, and what is to be told of it, a line each."""

    sources: dict[str, ImageDataset]
    notes: list[str]


def label_by_table(
    sources: Mapping[str, ImageDataset],
    file: Path,
    columns: ColumnNames = USUAL_COLUMNS,
) -> LabelledSources:
    """Label the images of some splits by a table, and let its column of splits divide a set.

    The classes are the sorted values of the whole table: numbers in the order of numbers.

    Args:
        sources: Images in folders or tars, by split.
        file: The table, see `read_table`.
        columns: Names of its columns.

    Raises:
        UserError: If the table cannot be read, a column is not there, no row names an image, rows
            disagree on an image, or the table and the folders disagree on a split.
    """
    paths, owners = image_paths(sources)
    table = read_table(file)
    images = ImagePaths(paths)
    image, numbers = image_column(table, images, columns.image)
    label = label_column(table, image, columns.label)
    if not any(number is not None for number in numbers):
        raise UserError(
            f"no row of {file} names an image: its column {image} holds "
            f"{_example(table.column(image))}, and images are such as {short_path(paths[0])!r}. If "
            "another column names them: --image-column COLUMN"
        )
    _check_agreement(table, numbers, label, paths)
    values = label_texts(table, label)
    classes = understand_values(filter(None, values), (), str(file))
    labels = np.full(len(paths), NO_LABEL, np.int32)
    for number, value in zip(numbers, values, strict=True):
        if number is not None and value:
            labels[number] = classes.number(value)
    notes = [f"labels: column {label} of {file}, for the images in its column {image}"]
    notes += _left_over(table, image, numbers, values, paths)
    of_splits = splits_column(table, numbers, columns.split, (image, label))
    if of_splits is not None:
        name, of_images = of_splits
        notes.append(f"splits: column {name} of {file}")
        parts = _divided(sources, owners, of_images, paths, f"the column {name} of {file}")
    else:
        parts = {split: np.flatnonzero(owners == split) for split in sources}
    return LabelledSources(
        {
            split: _part(sources, owners, indices, classes.classes, labels[indices])
            for split, indices in parts.items()
        },
        notes,
    )


def image_paths(sources: Mapping[str, ImageDataset]) -> tuple[list[Path], NDArray[np.str_]]:
    """Return the absolute paths of all images, and the split of each."""
    paths: list[Path] = []
    owners: list[str] = []
    for split, source in sources.items():
        if not isinstance(source, FolderDataset | TarDataset):
            raise UserError(
                "labels from a table are for images in a folder or a tar; shards and parquet files "
                "hold their own: see ssl-swin index --label-key"
            )
        root = source.root.absolute() if isinstance(source, FolderDataset) else Path("/")
        names = (os.fsdecode(bytes(name)) for name in source.image_names())
        paths += [root / name for name in names]
        owners += [split] * len(source)
    return paths, np.array(owners)


def _check_agreement(
    table: TextTable, numbers: Sequence[int | None], label: str, paths: Sequence[Path]
) -> None:
    """Refuse rows that give one image different labels."""
    first: dict[int, int] = {}
    labels = table.column(label)
    disagreeing = [
        (first[number], row)
        for row, number in enumerate(numbers)
        if number is not None and labels[first.setdefault(number, row)] != labels[row]
    ]
    if disagreeing:
        one, other = disagreeing[0]
        path = short_path(paths[numbers[one] or 0])
        raise UserError(
            f"{len(disagreeing)} rows of {table.path} give an image another label than a row "
            f"before, the first is {path}: {labels[one]!r} in line {table.lines[one]}, "
            f"{labels[other]!r} in line {table.lines[other]}. Leave one row per image"
        )


def _left_over(
    table: TextTable,
    image: str,
    numbers: Sequence[int | None],
    values: Sequence[str],
    paths: Sequence[Path],
) -> list[str]:
    notes = []
    unmatched = [row for row, number in enumerate(numbers) if number is None]
    if unmatched:
        name = table.column(image)[unmatched[0]]
        notes.append(
            f"rows without an image: {len(unmatched)} of {len(numbers)}, the first is {name!r} in "
            f"line {table.lines[unmatched[0]]}"
        )
    labelled = {n for n, value in zip(numbers, values, strict=True) if n is not None and value}
    if len(labelled) < len(paths):
        without = next(number for number in range(len(paths)) if number not in labelled)
        notes.append(
            f"images without a label: {len(paths) - len(labelled)} of {len(paths)}, the first is "
            f"{short_path(paths[without])}"
        )
    return notes


def _divided(
    sources: Mapping[str, ImageDataset],
    owners: NDArray[np.str_],
    of_images: Mapping[int, str],
    paths: Sequence[Path],
    what: str,
) -> dict[str, NDArray[np.int64]]:
    """Return the images of each split, as a column says."""
    if len(sources) > 1:
        for number, split in of_images.items():
            if split != owners[number]:
                raise UserError(
                    f"{what} puts {short_path(paths[number])} into {split}, its folder into "
                    f"{owners[number]}. Correct one, or ignore the column: --split-column "
                    f"{NO_COLUMN}"
                )
        return {split: np.flatnonzero(owners == split) for split in sources}
    without = [number for number in range(len(paths)) if number not in of_images]
    if without:
        raise UserError(
            f"{len(without)} images have no row, so that {what} does not say their split; the "
            f"first is {short_path(paths[without[0]])}. Add rows, move them away, or ignore the "
            f"column: --split-column {NO_COLUMN}"
        )
    counts = Counter(of_images.values())
    if "train" not in counts:
        raise UserError(f"{what} has no train, only: {', '.join(sorted(counts))}")
    return {
        split: np.array(sorted(n for n, s in of_images.items() if s == split), dtype=np.int64)
        for split in sorted(counts)
    }


def _part(
    sources: Mapping[str, ImageDataset],
    owners: NDArray[np.str_],
    indices: NDArray[np.int64],
    classes: tuple[str, ...],
    labels: NDArray[np.int32],
) -> ImageDataset:
    owner = str(owners[indices[0]])
    source = sources[owner]
    within = indices - int(np.flatnonzero(owners == owner)[0])
    if len(within) < len(source):
        part = Subset(source, within)
        part.fingerprint = fingerprint([source.fingerprint], within.tobytes())
        source = part
    return RelabelledDataset(source, classes, labels)


def _example(cells: Sequence[str]) -> str:
    return repr(next((cell for cell in cells if cell), ""))[:80]


def short_path(path: Path) -> str:
    """Return the last parts of a path, for messages."""
    return "/".join(path.parts[-3:]) if len(path.parts) > 3 else str(path)

"""Which column of a table names images, which holds their labels, and which their splits."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_swin.data.sources.table_files import TextTable, plain_name
from ssl_swin.data.sources.table_matching import ImagePaths
from ssl_swin.data.split_names import split_in_name
from ssl_swin.errors import UserError

IMAGE_COLUMNS = (
    "image", "images", "img", "image_path", "img_path", "filename", "file_name", "file",
    "filepath", "file_path", "path", "image_name", "img_name", "image_file", "image_filename",
    "image_id", "img_id", "id_code", "name", "id",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "category", "target", "class_name", "label_name", "category_name",
    "class_label", "class_id", "label_id", "category_id", "class_idx", "diagnosis", "species", "y",
)  # fmt: skip
_SPLIT_COLUMNS = ("split", "set", "partition", "subset", "phase", "data_split", "dataset_split")
NO_COLUMN = "none"


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns of a table of labels; None looks for the usual ones.

    Attributes:
        image: Column of paths or names of images.
        label: Column of classes.
        split: Column of the splits; "none" ignores it.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None


USUAL_COLUMNS = ColumnNames()


def usual_columns(table: TextTable, usual: Sequence[str]) -> list[str]:
    """Return the columns with usual names, in the order of those."""
    plain = {plain_name(column): column for column in reversed(table.columns)}
    return [plain[name] for name in usual if name in plain]


def _given(table: TextTable, name: str, option: str) -> str:
    matches = [c for c in table.columns if c == name] or [
        c for c in table.columns if plain_name(c) == plain_name(name)
    ]
    if not matches:
        near = difflib.get_close_matches(name, table.columns, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(
            f"{table.path} has no column {name!r} ({option}), only: {_listed(table)}{hint}"
        )
    return matches[0]


def image_column(
    table: TextTable, images: ImagePaths, name: str | None
) -> tuple[str, list[int | None]]:
    """Choose the column that names most images, and return the image of each row."""
    if name is not None:
        column = _given(table, name, "--image-column")
        return column, images.find(table.column(column))
    usual = usual_columns(table, IMAGE_COLUMNS)
    if not usual and len(table.columns) == 2 and (labels := usual_columns(table, LABEL_COLUMNS)):
        usual = [column for column in table.columns if column != labels[0]]
    if not usual:
        raise UserError(
            f"{table.path} has no column of images called image, filename, path, id or the like, "
            f"only: {_listed(table)}. Name it: --image-column COLUMN; a table without a header "
            "needs one: image,label"
        )
    found = {column: images.find(table.column(column)) for column in usual}
    best = max(found, key=lambda column: sum(number is not None for number in found[column]))
    return best, found[best]


def label_column(table: TextTable, image: str, name: str | None) -> str:
    """Choose the column of labels: as named, by its usual names, or the only one left.

    Args:
        table: The table.
        image: The column that names images.
        name: Name of the column, where one is given.

    Raises:
        UserError: If it is not there, or the choice is open.
    """
    if name is not None:
        return _given(table, name, "--label-column")
    usual = [column for column in usual_columns(table, LABEL_COLUMNS) if column != image]
    others = [column for column in table.columns if column != image]
    if not usual and len(others) != 1:
        raise UserError(
            f"{table.path} has no column of labels called label, class, category, target or the "
            f"like, only: {_listed(table)}. Name it: --label-column COLUMN"
        )
    return (usual or others)[0]


def _listed(table: TextTable, most: int = 12) -> str:
    shown = ", ".join(table.columns[:most])
    return shown if len(table.columns) <= most else f"{shown}, ... ({len(table.columns)} in all)"


def label_texts(table: TextTable, label: str) -> list[str]:
    """Return the labels, whole numbers in one form; "" for none."""
    cells = table.column(label)
    for row, cell in enumerate(cells):
        if cell.startswith(("[", "{")):
            raise UserError(
                f"{table.where(row)}: the label {cell!r:.60} holds several values; a label is one "
                "class. Name another column: --label-column COLUMN"
            )
    numbers = {cell: _as_number(cell) for cell in set(cells) if cell}
    if not numbers or None in numbers.values():
        return cells
    broken = next(
        (cell for cell, number in numbers.items() if not float(number or 0).is_integer()), None
    )
    if broken is not None:
        raise UserError(
            f"the column {label} of {table.path} holds numbers such as {broken}, which are no "
            "classes: those are whole numbers or names. Name another column: --label-column COLUMN"
        )
    whole = {cell: str(int(number or 0)) for cell, number in numbers.items()}
    return ["" if whole.get(cell, "") == "-1" else whole.get(cell, "") for cell in cells]


def _as_number(cell: str) -> float | None:
    try:
        return float(cell) if cell.lower() not in ("nan", "inf", "-inf", "infinity") else None
    except ValueError:
        return None


def splits_column(
    table: TextTable, numbers: Sequence[int | None], name: str | None, taken: Sequence[str]
) -> tuple[str, dict[int, str]] | None:
    """Return the column of splits, and the split of each image that has a row."""
    if name == NO_COLUMN:
        return None
    usual = [column for column in usual_columns(table, _SPLIT_COLUMNS) if column not in taken]
    if name is None and not usual:
        return None
    column = usual[0] if name is None else _given(table, name, "--split-column")
    cells = table.column(column)
    known = {cell: split_in_name(cell) for cell in set(cells)}
    unknown = sorted(cell for cell, split in known.items() if split is None)
    if unknown:
        raise UserError(
            f"the column {column} of {table.path} says {unknown[0]!r}, which is no split (train, "
            f"val, test). If it is about something else: --split-column {NO_COLUMN}"
        )
    of_images: dict[int, str] = {}
    for row, (number, cell) in enumerate(zip(numbers, cells, strict=True)):
        if number is not None and of_images.setdefault(number, str(known[cell])) != known[cell]:
            raise UserError(f"{table.where(row)} puts an image into a second split, {cell!r}")
    return column, of_images

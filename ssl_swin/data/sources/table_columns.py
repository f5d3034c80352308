"""Which column of a table holds the images, which the labels, and what labels mean."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.sources.table_files import plain_name
from ssl_swin.data.sources.table_roles import LABEL_COLUMNS
from ssl_swin.errors import UserError

_IMAGE_COLUMNS = ("image", "img")  # where several columns could be it, the first of these is
_LABEL_COLUMNS = ("label", "labels", "fine_label")
_BYTES = re.compile(r"(large_)?binary(_view)?$|struct<.*\bbytes: ")  # names of pyarrow's types
_TEXT = re.compile(r"(large_)?string(_view)?$|dictionary<values=(large_)?string")
NO_LABEL = -1  # also what Hugging Face stores in a test split without labels


def image_column(schema: Any, file: Path) -> str:
    """Find the column of encoded images: the one called image or img, or else the only one.

    Raises:
        UserError: If there is none, or the choice is open.
    """
    held = [field.name for field in schema if _BYTES.match(str(field.type))]
    preferred = [name for name in _IMAGE_COLUMNS if name in held]
    if not preferred and len(held) != 1:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise UserError(
            f"{file} has {len(held)} columns of encoded images, and none is called image: {columns}"
        )
    return (preferred or held)[0]


def label_column(schema: Any) -> str | None:
    """Find the column of labels: one called label, or else the only one with class names."""
    usable = [field.name for field in schema if is_number(field) or _TEXT.match(str(field.type))]
    named = [name for name in usable if class_names(schema, name)]
    preferred = [name for name in _LABEL_COLUMNS if name in usable]
    return (preferred or (named if len(named) == 1 else []) or [None])[0]


def unread_label_columns(schema: Any) -> list[str]:
    """Return the columns that are named like labels, where none is read as the label."""
    if label_column(schema) is not None:
        return []
    usable = [field.name for field in schema if is_number(field) or _TEXT.match(str(field.type))]
    return [name for name in usable if plain_name(name) in LABEL_COLUMNS]


def is_number(field: Any) -> bool:
    """Return whether a column holds whole numbers."""
    return re.fullmatch(r"u?int\d+", str(field.type)) is not None


def class_names(schema: Any, column: str | None) -> tuple[str, ...]:
    """Read the names that Hugging Face keeps in a schema for a column of numbers."""
    try:
        description = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(description["info"]["features"][column]["names"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()


def number_labels(
    values: NDArray[Any], names: tuple[str, ...], root: Path
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the classes, and the label of each row.

    Args:
        values: Labels by row: numbers (-1 for none) or encoded texts (empty for none).
        names: Names of the numbers; without them, the values themselves are the classes, sorted.
        root: Folder, for messages.

    Raises:
        UserError: If a number has no name.
    """
    is_text = values.dtype.kind == "S"
    if names and not is_text:
        if values.min() < NO_LABEL or values.max() >= len(names):
            raise UserError(
                f"{root} has labels from {values.min()} to {values.max()}, but {len(names)} names"
            )
        return names, values.astype(np.int32)
    absent = values == b"" if is_text else values == NO_LABEL
    found, labels = np.unique(values[~absent], return_inverse=True)
    numbered = np.full(len(values), NO_LABEL, np.int32)
    numbered[~absent] = labels
    return tuple(value.decode() if is_text else str(value) for value in found.tolist()), numbered

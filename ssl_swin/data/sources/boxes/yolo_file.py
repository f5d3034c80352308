"""The text files of YOLO: labels of an image, and data.yaml."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from ssl_swin.data.sources.boxes.objects import fitted
from ssl_swin.errors import UserError
from ssl_swin.plain_yaml import read_plain_yaml

TOLERANCE = 1e-3  # by which a share may be outside [0, 1], since it was rounded
_SPLITS = ("train", "val", "test")


class YoloObject(NamedTuple):
    """An object: shares of the width and the height of its image."""

    label: int
    box: list[float] | None  # x_min, y_min, x_max, y_max; None where it is empty
    polygon: list[float] | None  # x, y, x, y, ...
    line: str


class DataYaml(NamedTuple):
    """What data.yaml says."""

    path: Path
    base: Path | None  # its `path`, as it is written
    splits: dict[str, list[str]]
    names: tuple[str, ...]  # empty where it names none


def read_label_file(path: Path) -> list[YoloObject]:
    """Read the labels of an image.

    A line is the number of a class and a box (x and y of its centre, width, height), or the corners
    x, y, x, y, ... of a polygon, all as shares of the width and the height of the image.

    Args:
        path: The file.

    Raises:
        UserError: If it cannot be read, or a line is no such thing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text: {error}") from error
    return [
        _object(line, f"{path}: line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _object(line: str, title: str) -> YoloObject:
    words = line.split()
    try:
        label = float(words[0])
        values = [float(word) for word in words[1:]]
    except ValueError as error:
        raise UserError(f"{title} holds what is no number: {line:.80}") from error
    if not label.is_integer() or label < 0:
        raise UserError(f"{title} begins with {words[0]}, which is no number of a class")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise UserError(
            f"{title} has {len(values)} numbers after the class, where a box has 4, and a polygon "
            "6, 8 or another even number"
        )
    for value in values:
        if not math.isfinite(value) or not -TOLERANCE <= value <= 1 + TOLERANCE:
            raise UserError(
                f"{title} has the value {value:g} outside 0 to 1: coordinates of YOLO are shares "
                "of the width and the height of the image"
            )
    box, polygon = _box(values), values if len(values) > 4 else None
    return YoloObject(int(label), fitted(box, 1.0, 1.0), polygon, line.strip())


def _box(values: list[float]) -> list[float]:
    if len(values) > 4:
        return [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
    x, y, width, height = values
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def read_data_yaml(path: Path) -> DataYaml:
    """Read data.yaml.

    Args:
        path: The file.

    Raises:
        UserError: If it cannot be read, or names no folder of images.
    """
    try:
        content = read_plain_yaml(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UserError as error:
        problem = str(error).partition(" is damaged: ")[2]
        raise UserError(f"{path} is no data.yaml of YOLO: {problem or error}") from error
    splits = {split: _entries(content.get(split), split, path) for split in _SPLITS}
    splits = {split: entries for split, entries in splits.items() if entries}
    if "train" not in splits:
        held = ", ".join(map(str, content)) or "nothing"
        raise UserError(f"{path} is no data.yaml of YOLO: it has no 'train', but {held}")
    base = content.get("path")
    names = _names(content.get("names"), path)
    number = content.get("nc")
    if names and isinstance(number, int) and number != len(names):
        raise UserError(f"{path} has nc: {number}, and names {len(names)} classes")
    return DataYaml(path, Path(str(base)) if base else None, splits, names)


def _entries(value: Any, split: str, path: Path) -> list[str]:
    entries = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(entry, str) and entry for entry in entries):
        raise UserError(f"{path}: {split} must be a path or a list of paths, got {value!r}")
    return entries


def _names(value: Any, path: Path) -> tuple[str, ...]:
    """Return the names of the classes, which are a list or numbered from 0."""
    if value is None:
        return ()
    if isinstance(value, dict):
        if sorted(value, key=str) != sorted(range(len(value)), key=str):
            raise UserError(f"{path}: names must be numbered from 0 without gaps, got {value}")
        value = [value[number] for number in range(len(value))]
    if not isinstance(value, list) or len(set(map(str, value))) < len(value):
        raise UserError(f"{path}: names must be a list of different words, got {value!r}")
    return tuple(map(str, value))

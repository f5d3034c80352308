"""The classes of a split in a report: confusions, surest mistakes, accuracy of each class."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

from ssl_swin.reporting.pictures import Picture, photographs_of, picture_of

PREFIX = "confusion_"
MISTAKES = "mistakes.png"
CAPTIONS = {"confusion.png": "confusion matrix", MISTAKES: "most confident mistakes"}
MOST_ROWS = 200  # of the table, the worst


class JudgedSplit(NamedTuple):
    """What was predicted of the images of one split."""

    name: str
    pictures: tuple[Picture, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # the classes of lowest accuracy first
    num_classes: int


def judged_splits(run_folder: Path) -> tuple[JudgedSplit, ...]:
    """Return what the folders `confusion_SPLIT` of a run hold; what is missing is left out.

    Args:
        run_folder: Of a fine-tuning or a linear probe.
    """
    found = (_judged(folder) for folder in sorted(run_folder.glob(f"{PREFIX}*")))
    return tuple(split for split in found if split.pictures or split.rows)


def _judged(folder: Path) -> JudgedSplit:
    name = folder.name.removeprefix(PREFIX)
    pictures = tuple(
        (photographs_of if file == MISTAKES else picture_of)(folder / file, f"{caption}, {name}")
        for file, caption in CAPTIONS.items()
        if (folder / file).is_file()
    )
    header, *rows = _table(folder / "per_class.csv") or [()]
    at = header.index("accuracy_percent") if "accuracy_percent" in header else None
    whole = [row for row in rows if len(row) == len(header)]
    if at is not None:
        whole.sort(key=lambda row: _number(row[at]))
    titles = tuple(title.replace("_", " ") for title in header)
    return JudgedSplit(name, pictures, titles, tuple(whole[:MOST_ROWS]), len(whole))


def _table(path: Path) -> list[tuple[str, ...]]:
    try:
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            return [tuple(row) for row in csv.reader(file)]
    except (OSError, csv.Error):
        return []


def _number(text: str) -> float:
    """Return a cell's number; classes without images, which have none, come last."""
    try:
        value = float(text)
    except ValueError:
        return math.inf
    return value if math.isfinite(value) else math.inf

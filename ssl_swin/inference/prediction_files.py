"""Tables of predicted classes: CSV, JSON lines or parquet, by the ending of their name."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ssl_swin.data.sources.table_rows import pyarrow
from ssl_swin.inference.parts import Parts
from ssl_swin.inference.vector_files import in_utf8, write_csv


class Prediction(NamedTuple):
    """What is said of an image: its classes from the most probable on, with their scores."""

    name: str
    label: str | None
    classes: list[str]
    scores: list[float]


def write_predictions(parts: Parts, rows: Iterable[Prediction], *, labelled: bool, top: int) -> int:
    """Write the file of some parts.

    Args:
        parts: Say where.
        rows: What to write.
        labelled: Whether there is a column of labels.
        top: Classes of each row.

    Returns:
        Number of rows.
    """
    counted = _Counted(rows)
    with parts.whole(parts.out) as path:
        _WRITERS[parts.out.suffix.lower()](path, counted, labelled, top)
    return counted.number


class _Counted:
    """Rows, and how many of them were taken."""

    def __init__(self, rows: Iterable[Prediction]) -> None:
        self.rows, self.number = rows, 0

    def __iter__(self) -> Iterator[Prediction]:
        for row in self.rows:
            self.number += 1
            yield row


def _write_csv(path: Path, rows: Iterable[Prediction], labelled: bool, top: int) -> None:
    columns = [f"{what}{rank}" for rank in range(1, top + 1) for what in ("class", "score")]
    header = ["name", *(["label"] if labelled else []), *columns]
    write_csv(path, header, (_cells(row, labelled) for row in rows))


def _cells(row: Prediction, labelled: bool) -> list[str]:
    pairs = zip(row.classes, row.scores, strict=True)
    told = [cell for each, score in pairs for cell in (in_utf8(each), f"{score:.6g}")]
    return [row.name, *([in_utf8(row.label or "")] if labelled else []), *told]


def _write_jsonl(path: Path, rows: Iterable[Prediction], labelled: bool, top: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            pairs = zip(row.classes, row.scores, strict=True)
            listed = [{"class": each, "score": float(f"{score:.6g}")} for each, score in pairs]
            label = {"label": row.label} if labelled else {}
            file.write(json.dumps({"name": row.name, **label, "predictions": listed}) + "\n")


def _write_parquet(path: Path, rows: Iterable[Prediction], labelled: bool, top: int) -> None:
    arrow = pyarrow()
    texts = [("name", arrow.string()), ("label", arrow.string())][: 1 + labelled]
    lists = [("classes", arrow.list_(arrow.string())), ("scores", arrow.list_(arrow.float32()))]
    schema = arrow.schema([*texts, *lists])
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for row in rows:
        for name, values in columns.items():
            values.append(getattr(row, name))
    arrow.parquet.write_table(arrow.table(columns, schema), path)


_WRITERS: dict[str, Callable[[Path, Iterable[Prediction], bool, int], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
PREDICTION_ENDINGS = tuple(_WRITERS)

"""Tables of text: CSV, TSV, JSON, JSON lines and parquet files as a header and rows."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of
from ssl_swin.data.sources.table_rows import ParquetRows
from ssl_swin.errors import UserError

_SEPARATORS = "\t,;|"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_NO_TABLES = {  # first bytes of files that are no tables of these kinds
    b"PK\x03\x04": "a zip archive or a workbook of a spreadsheet: save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "a workbook of a spreadsheet: save the sheet as CSV",
    b"\x1f\x8b": "compressed: gunzip it",
    b"SQLite format": "a database: export the table as CSV",
}


class TextTable(NamedTuple):
    """A table; every cell is a text, and "" where there is no value."""

    path: Path
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    lines: list[int]  # of the file, by row, for messages; the first one is 1

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        number = self.columns.index(name)
        return [row[number] for row in self.rows]

    def where(self, row: int) -> str:
        """Return the place of a row, for messages."""
        return f"{self.path} line {self.lines[row]}"


def read_table(path: Path) -> TextTable:
    """Read a table whose kind its ending says, or else its content.

    A list of two cells a line, of which one names an image, needs no header.

    Args:
        path: A `.csv`, `.tsv`, `.json`, `.jsonl` or `.parquet` file; of other endings it may be
            JSON lines or have cells separated by tabs, commas, semicolons or bars. A `.json` file
            is a list of objects, or an object of labels by image.

    Raises:
        UserError: If it cannot be read, is of another kind, or a row does not fit its header.
    """
    try:
        content = b"" if path.suffix.lower() == ".parquet" else path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the table {path}: {error.strerror}") from error
    for magic, told in _NO_TABLES.items():
        if content.startswith(magic):
            raise UserError(f"cannot read the table {path}: it is {told}")
    if path.suffix.lower() == ".parquet":
        table = _read_parquet(path)
    else:
        table = _read_text(path, _decoded(path, content))
    if not table.rows:
        raise UserError(f"{path} holds no row below its header")
    return table


def read_head(path: Path, num_bytes: int = 1 << 16) -> TextTable | None:
    """Read the first rows of a table of text; None if it is none.

    Args:
        path: A file.
        num_bytes: Number of bytes to read at most.
    """
    try:
        with path.open("rb") as file:
            content = file.read(num_bytes)
        if len(content) == num_bytes:
            content = content[: content.rfind(b"\n") + 1]
        return _read_text(path, _decoded(path, content))
    except (OSError, UserError):
        return None


def plain_name(column: str) -> str:
    """Return the name of a column in lower case, with underscores for blanks and dashes."""
    return re.sub(r"[\s\-]+", "_", column.strip().lower())


def _decoded(path: Path, content: bytes) -> str:
    try:
        text = content.decode("utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig")
        if "\0" in text:
            raise UserError(f"{path} is no table: it holds NUL bytes. Save it as CSV in UTF-8")
        return text
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error.reason}). Save it as UTF-8") from error


def _read_text(path: Path, text: str) -> TextTable:
    ending = path.suffix.lower()
    if ending == ".json":
        return _of_json(path, text)
    if ending in (".jsonl", ".ndjson") or text.lstrip().startswith("{"):
        return _of_json_lines(path, text)
    return _of_cells(path, text)


def _of_cells(path: Path, text: str) -> TextTable:
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(_SEPARATORS, key=first.count)
    if separator not in first and " " in first.strip():  # a list such as "images/0.jpg 3"
        text = "\n".join("\t".join(line.rsplit(maxsplit=1)) for line in text.splitlines())
        separator = "\t"
    rows, lines = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(tuple(cell.strip() for cell in cells))
                lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"cannot read {path} line {reader.line_num}: {error}") from error
    if not rows:
        raise UserError(f"{path} is empty")
    if (header := _missing_header(rows[0])) is not None:
        rows, lines = [header, *rows], [0, *lines]
    header, *body = rows
    for number, row in enumerate(body):
        body[number] = row[: len(header)] if not any(row[len(header) :]) else row
        if len(body[number]) != len(header):
            raise UserError(
                f"{path} line {lines[number + 1]} has {len(row)} cells, the header has "
                f"{len(header)}: {', '.join(header)}. Quote cells that hold a separator"
            )
    return TextTable(path, header, body, lines[1:])


def _missing_header(first: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the header of a list without one: two cells, of which one names an image."""
    are_images = [extension_of(cell) in IMAGE_EXTENSIONS for cell in first]
    if len(first) != 2 or sum(are_images) != 1:
        return None
    return ("image", "label") if are_images[0] else ("label", "image")


def _of_json_lines(path: Path, text: str) -> TextTable:
    objects, lines = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            objects.append(_parsed(f"{path} line {number}", line))
            lines.append(number)
    return _of_objects(path, objects, lines)


def _of_json(path: Path, text: str) -> TextTable:
    content = _parsed(str(path), text)
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        raise UserError(
            f"{path} is of COCO's form, where an image may have many annotations. Write a table of "
            "one label per image: image,label"
        )
    if isinstance(content, dict):
        content = [{"image": name, "label": label} for name, label in content.items()]
    return _of_objects(path, content, list(range(1, len(content) + 1)))


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no JSON: {error}") from error


def _of_objects(path: Path, objects: Any, lines: Sequence[int]) -> TextTable:
    if not isinstance(objects, list) or not all(isinstance(entry, dict) for entry in objects):
        raise UserError(f"{path} must hold objects such as {{'image': 'a.jpg', 'label': 'cat'}}")
    columns = tuple(dict.fromkeys(str(key) for entry in objects for key in entry))
    rows = [tuple(_cell(entry.get(column)) for column in columns) for entry in objects]
    return TextTable(path, columns, rows, list(lines))


def _read_parquet(path: Path) -> TextTable:
    if not path.is_file():
        raise UserError(f"cannot read the table {path}: there is no such file")
    table = ParquetRows(path)
    columns = [field.name for field in table.schema if "binary" not in str(field.type)]
    values: Iterable[Any] = zip(*(table.values(name).to_pylist() for name in columns), strict=True)
    rows = [tuple(map(_cell, row)) for row in values]
    return TextTable(path, tuple(columns), rows, list(range(1, len(rows) + 1)))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value) if isinstance(value, dict | list) else str(value).strip()

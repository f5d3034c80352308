"""A line of `metrics.csv`: written, read, and told from what is no line of it."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence

FIRST_COLUMNS = ("step", "epoch", "samples_seen")
MOST_STEP_DIGITS = 18  # so that a step fits 64 bits
_WHOLE_NUMBERS = FIRST_COLUMNS
_NUMBER = rb"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|inf|nan)"

Row = dict[str, float]


def header_line(columns: Sequence[str]) -> bytes:
    """Return the first line of a file.

    Args:
        columns: Names, of which the first is `step`.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(columns)
    return text.getvalue().encode()


def columns_of(line: bytes) -> list[str] | None:
    """Return the columns that a first line names; None if it is no header.

    Args:
        line: As read, with its end.
    """
    if b"\0" in line or not line.endswith(b"\n"):
        return None
    try:
        columns = next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None
    is_header = columns[:1] == ["step"] and all(columns) and len(set(columns)) == len(columns)
    return columns if is_header else None


def row_line(columns: Sequence[str], step: int, row: Mapping[str, float]) -> bytes:
    """Return the line of a step.

    Args:
        columns: Names, of which the first is `step`.
        step: Number of the step.
        row: Values by column; what is missing becomes an empty cell.
    """
    cells = (_cell(name, row.get(name)) for name in columns[1:])
    return ",".join((str(step), *cells)).encode() + b"\n"


def read_row(columns: Sequence[str], line: bytes) -> Row:
    """Return the values of a whole line, without the step.

    Args:
        columns: Names, of which the first is `step`.
        line: A line as `whole_line` returns it.
    """
    cells = line.decode().rstrip("\n").split(",")
    pairs = zip(columns[1:], cells[1:], strict=True)
    return {name: float(cell) for name, cell in pairs if cell}


def step_of(line: bytes) -> int:
    """Return the step of a whole line."""
    return int(line[: line.index(b",")]) if b"," in line else int(line)


class LineCheck:
    """Tells whole lines of a file with given columns from damaged ones."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.num_columns = len(columns)
        cells = rb"(?:,(?:%s)?){%d}" % (_NUMBER, self.num_columns - 1)
        step = rb"\d{1,%d}" % MOST_STEP_DIGITS
        self._plain = re.compile(step + cells + rb"\n", re.IGNORECASE)

    def whole_line(self, line: bytes) -> bytes | None:
        """Return a line as this package writes it; None if it is damaged.

        Args:
            line: As read; another program may have quoted its cells or ended it otherwise.
        """
        if self._plain.fullmatch(line):
            return line
        try:
            cells = next(csv.reader([line.decode("ascii").rstrip("\r\n")], strict=True), [])
        except (UnicodeDecodeError, csv.Error):
            return None
        plain = b",".join(cell.strip().encode() for cell in cells) + b"\n"
        return plain if line.endswith(b"\n") and self._plain.fullmatch(plain) else None


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name in _WHOLE_NUMBERS and math.isfinite(value):
        return str(int(value))
    return f"{value:.7g}"

"""Makes a `metrics.csv` whole again: after a crash, another program's hand, or an older version."""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ssl_swin.files import atomic_path
from ssl_swin.runs.metrics_blocks import LONGEST_LINE, blocks, steps_of_whole
from ssl_swin.runs.metrics_rows import (
    FIRST_COLUMNS,
    LineCheck,
    Row,
    columns_of,
    header_line,
    read_row,
    row_line,
    step_of,
)

_SAMPLES = FIRST_COLUMNS[-1]


def repair(path: Path) -> str:
    """Leave out the lines that are damaged, and keep the file as it was beside it.

    A file of version 0.1.0 is brought up to date: there a step was counted from 0, so that what its
    training logged stood one step before what callbacks logged.

    Args:
        path: A file.

    Returns:
        What was done, as a sentence; empty if the file is whole.
    """
    with path.open("rb") as file:
        header = file.readline(LONGEST_LINE)
        columns = columns_of(header)
        if columns is None:
            return _set_aside(path) if os.path.getsize(path) else ""
        num_damaged, is_ours = _checked(file, columns)
    aside = _aside(path)
    if num_damaged:
        shutil.copyfile(path, aside)
    if num_damaged or not is_ours or header != header_line(columns):
        _rewrite(path, columns)
    if _SAMPLES not in columns:
        _shift(path, columns)
    if not num_damaged:
        return ""
    lines = "line that is" if num_damaged == 1 else "lines that are"
    return f"{path} had {num_damaged} {lines} damaged, left out; as it was, it is {aside}"


def _set_aside(path: Path) -> str:
    aside = _aside(path)
    os.replace(path, aside)
    return f"{path} has no header, so that nothing in it can be read: it is now {aside}"


def _aside(path: Path) -> Path:
    names = (f"{path.stem}.damaged{n or ''}{path.suffix}" for n in range(1_000_000))
    return next(other for name in names if not (other := path.with_name(name)).exists())


def _whole_lines(file: BinaryIO, columns: list[str]) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield each line, and as this package writes it; None if it is damaged or out of order."""
    check, last = LineCheck(columns), -1
    while line := file.readline(LONGEST_LINE):
        whole = _in_order(check.whole_line(line), last)
        last = last if whole is None else step_of(whole)
        yield line, whole


def _in_order(line: bytes | None, last: int) -> bytes | None:
    return None if line is None or step_of(line) <= last else line


def _checked(file: BinaryIO, columns: list[str]) -> tuple[int, bool]:
    """Return how many lines are damaged, and whether the others are as this package writes them."""
    check, last, num_damaged, is_ours = LineCheck(columns), -1, 0, True
    for block in blocks(file):
        steps = steps_of_whole(block, check)
        if steps is not None and steps[0] > last:
            last = int(steps[-1])
            continue
        for line in io.BytesIO(block):
            whole = _in_order(check.whole_line(line), last)
            last = last if whole is None else step_of(whole)
            num_damaged += whole is None
            is_ours &= whole is None or whole == line
    return num_damaged, is_ours


def _rewrite(path: Path, columns: list[str]) -> None:
    with atomic_path(path) as temporary, path.open("rb") as old, temporary.open("wb") as new:
        old.readline(LONGEST_LINE)
        new.write(header_line(columns))
        new.writelines(line for _, line in _whole_lines(old, columns) if line is not None)


def _shift(path: Path, columns: list[str]) -> None:
    """Give what training logged the number of steps that were done by then."""
    wide = [*FIRST_COLUMNS, *(name for name in columns if name not in FIRST_COLUMNS)]
    with atomic_path(path) as temporary, path.open("rb") as old, temporary.open("wb") as new:
        old.readline(LONGEST_LINE)
        new.write(header_line(wide))
        new.writelines(row_line(wide, step, row) for step, row in _shifted(old, columns))


def _shifted(file: BinaryIO, columns: list[str]) -> Iterator[tuple[int, Row]]:
    waiting: tuple[int, Row] | None = None  # logged by training, one step later
    for _, line in _whole_lines(file, columns):
        if line is None:
            continue
        step, row = step_of(line), read_row(columns, line)
        ours = {name: row[name] for name in row if name.startswith("probe/")}
        theirs = {name: row[name] for name in row if name not in ours}
        if waiting is not None and waiting[0] < step:
            yield waiting
            waiting = None
        if waiting is not None:
            yield step, {**waiting[1], **ours}
        elif ours:
            yield step, ours
        waiting = (step + 1, theirs) if theirs else None
    if waiting is not None:
        yield waiting

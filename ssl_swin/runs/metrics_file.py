"""`metrics.csv`: a row per logged step, written as the run goes on, whole at any moment.

A row costs one line, whatever the length of the file, and memory holds one row. A metric that is
new widens the file, which is then written anew: that happens as often as there are metrics.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ssl_swin.disk_errors import DiskError
from ssl_swin.files import atomic_path, write_atomically
from ssl_swin.runs.metrics_repair import repair
from ssl_swin.runs.metrics_rows import (
    FIRST_COLUMNS,
    Row,
    columns_of,
    header_line,
    read_row,
    row_line,
    step_of,
)
from ssl_swin.runs.metrics_tail import lines_from_end

_READ_BYTES = 1 << 16  # at once, where a step is looked for


class MetricsFile:
    """The file and its last row; rows stand in the order of their steps, each step once."""

    def __init__(self, path: str | Path) -> None:
        """Start without rows; a file that is there is replaced by the first row.

        Args:
            path: The file.
        """
        self.path = Path(path)
        self.columns: list[str] = []
        self._start_empty()

    def _start_empty(self) -> None:
        self.columns = []
        self._last_step = -1
        self._last_row: Row = {}
        self._last_at = self._end = 0  # where the last line begins, and where it ends

    def read(self) -> str:
        """Continue the file that is there, if any.

        Returns:
            What was found damaged and is left out, as a sentence; empty if nothing was.
        """
        self._start_empty()
        if not self.path.is_file():
            return ""
        note = repair(self.path)
        self._find_end()
        return note

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to the row of a step; those of the last row may be given again.

        A step before the last row's means that the run went back: later rows are dropped.

        Args:
            step: Number of the step.
            values: By column.

        Raises:
            DiskError: If the file cannot be written.
        """
        try:
            self._write(step, values)
        except OSError as error:
            raise DiskError(f"cannot write {self.path}: {error.strerror}") from error

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self.columns and not self._is_as_left():
            self.read()  # another process has changed or removed it
        if step < self._last_step:
            self.forget_after(step)
        known = self.columns or list(FIRST_COLUMNS)
        new = [name for name in values if name not in known]
        if new or not self.columns:
            self._widen([*known, *new])
        is_last = step == self._last_step
        row = {**self._last_row, **values} if is_last else dict(values)
        at = self._last_at if is_last else self._end
        line = row_line(self.columns, step, row)
        self._put(line, at)
        self._last_step, self._last_row = step, row
        self._last_at, self._end = at, at + len(line)

    def forget_after(self, step: int) -> None:
        """Drop the rows of later steps."""
        if step >= self._last_step:
            return
        with self.path.open("rb") as file:
            end = self._end_of(step, file)
        os.truncate(self.path, end)
        self._find_end()

    def rows(self, *, after: int, up_to: int) -> Iterator[tuple[int, Row]]:
        """Yield the rows of steps in (after, up_to]."""
        if not self.columns:
            return
        with self.path.open("rb") as file:
            file.seek(self._end_of(after, file))
            for line in file:
                step = step_of(line)
                if step > up_to:
                    return
                yield step, read_row(self.columns, line)

    def sync(self) -> None:
        """Make sure that what was written outlives a failure of the machine.

        Raises:
            DiskError: If it cannot be.
        """
        try:
            if self.columns:
                handle = os.open(self.path, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
        except OSError as error:
            raise DiskError(f"cannot write {self.path}: {error.strerror}") from error

    def _end_of(self, step: int, file: BinaryIO) -> int:
        """Return where the rows up to a step end, halving the place where that can be."""
        low, high = len(file.readline()), file.seek(0, os.SEEK_END)
        while high - low > _READ_BYTES:
            file.seek((low + high) // 2)
            file.readline()
            at = file.tell()
            if at >= high:
                break
            low, high = (low, at) if step_of(file.readline()) > step else (at, high)
        file.seek(low)
        for line in file:
            if step_of(line) > step:
                break
            low += len(line)
        return low

    def _is_as_left(self) -> bool:
        try:
            return self.path.stat().st_size == self._end
        except FileNotFoundError:
            return False

    def _put(self, line: bytes, at: int) -> None:
        handle = os.open(self.path, os.O_WRONLY)
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(handle, line[written:], at + written)
            if at + len(line) < self._end:
                os.ftruncate(handle, at + len(line))
        except OSError:
            if at == self._end:  # a full disk: no half line stays
                os.ftruncate(handle, at)
            raise
        finally:
            os.close(handle)

    def _widen(self, columns: Sequence[str]) -> None:
        """Write the file anew with more columns, which come last."""
        header = header_line(columns)
        if not self.columns:
            write_atomically(self.path, header)
            self._last_at = self._end = len(header)
        else:
            more = b"," * (len(columns) - len(self.columns)) + b"\n"
            with atomic_path(self.path) as temporary, self.path.open("rb") as old:
                old.readline()
                with temporary.open("wb") as new:
                    new.write(header)
                    for line in old:
                        self._last_at = new.tell()
                        new.write(line.rstrip(b"\n") + more)
                    self._end = new.tell()
        self.columns = list(columns)

    def _find_end(self) -> None:
        """Find the last row of a whole file."""
        self._start_empty()
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            line = file.readline()
            self.columns = columns_of(line) or []
            header_end = self._last_at = self._end = len(line)
            size = self._end = file.seek(0, os.SEEK_END)
            if size > header_end:
                last = next(lines_from_end(file, header_end))
                self._last_at = size - len(last)
                self._last_step, self._last_row = step_of(last), read_row(self.columns, last)

"""Tables on disk, row by row: parquet files and Arrow streams.

The only module that imports pyarrow, which is optional, and only when a table is opened.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path


class Rows(Protocol):
    """One table, open for reading."""

    schema: Any  # pyarrow.Schema

    def __len__(self) -> int:
        """Number of rows."""

    def value(self, column: str, row: int) -> Any:
        """One value as a pyarrow scalar."""

    def values(self, column: str) -> Any:
        """A whole column as a pyarrow array."""


class ArrowRows:
    """An Arrow stream, mapped to memory: any row is one read away."""

    most_open = 10_000  # a mapping takes no memory and no file descriptor

    def __init__(self, path: Path) -> None:
        arrow = pyarrow()
        with arrow.memory_map(str(path)) as file, _naming(path):
            self._table = arrow.ipc.open_stream(file).read_all()
        self.schema = self._table.schema

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def value(self, column: str, row: int) -> Any:
        """One value as a pyarrow scalar."""
        return self._table.column(column)[row]

    def values(self, column: str) -> Any:
        """A whole column as a pyarrow array."""
        return self._table.column(column)


class ParquetRows:
    """A parquet file. To read one value is to decode its row group; the last one is kept."""

    most_open = 8  # row groups of images are of 10 MB and more

    def __init__(self, path: Path) -> None:
        pyarrow()
        from pyarrow.parquet import ParquetFile

        with _naming(path):
            self._file = ParquetFile(path, memory_map=True)
        self.schema = self._file.schema_arrow
        metadata = self._file.metadata
        lengths = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *lengths])
        self._path = path
        self._kept: tuple[str, int, Any] = ("", -1, None)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def value(self, column: str, row: int) -> Any:
        """One value as a pyarrow scalar."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if self._kept[:2] != (column, group):
            self._kept = (column, group, self._read(column, group))
        return self._kept[2][row - int(self._starts[group])]

    def values(self, column: str) -> Any:
        """A whole column as a pyarrow array."""
        with _naming(self._path):
            return self._file.read([column], use_threads=False).column(column)

    def unpack(self, column: str, path: Path) -> None:
        """Write one column as an Arrow stream, all of it or nothing."""
        arrow = pyarrow()
        schema = arrow.schema([self.schema.field(column)])
        with atomic_path(path) as temporary, arrow.ipc.new_stream(str(temporary), schema) as stream:
            for group in range(len(self._starts) - 1):
                stream.write_table(arrow.table([self._read(column, group)], schema=schema))

    def _read(self, column: str, group: int) -> Any:
        with _naming(self._path):
            return self._file.read_row_group(group, [column], use_threads=False).column(column)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what pyarrow raises about a damaged table into one message that names the file."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {reason}. Download it anew") from error


def pyarrow() -> Any:
    """Return the module, with its `compute` and `parquet`.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "parquet files and Hugging Face data sets need pyarrow, which is not "
            "installed: pip install 'ssl_swin[hf]'"
        ) from error
    return pyarrow

"""The newest values of a metrics.csv, read from its end."""

from collections.abc import Callable
from pathlib import Path

from ssl_swin.runs.metrics_rows import LineCheck, columns_of, read_row
from ssl_swin.runs.metrics_tail import lines_from_end


def last_values(metrics: Path, is_wanted: Callable[[str], bool]) -> dict[str, float]:
    """Return the newest value of each wanted column that has one.

    Args:
        metrics: The file, which need not be there.
        is_wanted: Whether a column is wanted, by its name.

    Returns:
        Values by name, in the order of the columns.
    """
    if not metrics.is_file():
        return {}
    found: dict[str, float] = {}
    with metrics.open("rb") as file:
        columns, start = columns_of(file.readline()) or [], file.tell()
        check, missing = LineCheck(columns), [name for name in columns if is_wanted(name)]
        for line in lines_from_end(file, start) if missing else ():
            whole = check.whole_line(line)
            row = {} if whole is None else read_row(columns, whole)
            found.update({name: row[name] for name in missing if name in row})
            missing = [name for name in missing if name not in row]
            if not missing:
                break
    return {name: found[name] for name in columns if name in found}

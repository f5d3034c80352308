"""What the jobs of a sweep were asked for, and what came of them."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically
from ssl_swin.runs.metrics_rows import LineCheck, columns_of, read_row
from ssl_swin.runs.metrics_tail import lines_from_end

RECORD = ".job.json"  # in the folder of each job
TABLE = "sweep.csv"  # in the folder of the sweep
FINISHED, STOPPED = "finished", "stopped"  # a stopped job is continued by the same command


def record_job(folder: Path, **facts: Any) -> None:
    """Write down how a job of a sweep stands.

    Args:
        folder: Folder of the job.
        facts: Its settings, its status, and what came of it.
    """
    write_atomically(folder / RECORD, json.dumps(facts, indent=2) + "\n")


def read_jobs(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return what the jobs of a sweep have written down, by the name of their folder.

    Args:
        sweep: Folder of the sweep.

    Raises:
        UserError: If there is no such folder, or no job in it.
    """
    records = {path.parent.name: _record(path) for path in sorted(sweep.glob(f"*/{RECORD}"))}
    jobs = {name: record for name, record in records.items() if record is not None}
    if not jobs:
        raise UserError(f"{sweep} holds no job of a sweep: give the folder NAME_sweep of one")
    return jobs


def job_status(folder: Path) -> str:
    """Return how a job of a sweep stands by its own record; empty if there is none.

    Args:
        folder: Folder of the job.
    """
    return str((_record(folder / RECORD) or {}).get("status", ""))


def _record(path: Path) -> dict[str, Any] | None:
    """Return what a job has written down; None if that is missing or damaged."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def write_table(sweep: Path) -> str:
    """Write `sweep.csv`, a row per job, and return it as aligned text.

    Args:
        sweep: Folder of the sweep.

    Raises:
        UserError: If there is no job in it.
    """
    jobs = read_jobs(sweep)
    settings = list(dict.fromkeys(key for job in jobs.values() for key in _settings(job)))
    metrics = list(dict.fromkeys(str(job.get("metric") or "") for job in jobs.values()))
    rows = [[*settings, *(name for name in metrics if name), "status", "folder"]]
    for name, job in jobs.items():
        values = [_number(job.get("value")) if job.get("metric") == m else "" for m in metrics if m]
        asked = [_settings(job).get(key, "") for key in settings]
        rows.append([*asked, *values, str(job.get("status", "")), name])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_atomically(sweep / TABLE, text.getvalue())
    return _aligned(rows)


def last_value(metrics: Path, names: Sequence[str]) -> float:
    """Return the last value that a metrics.csv has under the first of some names that it knows.

    Args:
        metrics: The file.
        names: Columns, the most wanted first.

    Returns:
        The value; nan if there is none.
    """
    if not metrics.is_file():
        return math.nan
    with metrics.open("rb") as file:
        columns, start = columns_of(file.readline()) or [], file.tell()
        for name in (name for name in names if name in columns):
            check = LineCheck(columns)
            for line in lines_from_end(file, start):
                whole = check.whole_line(line)
                if whole is not None and name in (row := read_row(columns, whole)):
                    return row[name]
    return math.nan


def _settings(job: Mapping[str, Any]) -> dict[str, str]:
    settings = job.get("settings")
    return {str(k): str(v) for k, v in settings.items()} if isinstance(settings, dict) else {}


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else ""


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)

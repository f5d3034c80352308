"""A sweep: jobs that fail alone, what each returns, and the table at the end."""

import math
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from ssl_swin.errors import UserError
from ssl_swin.files import remove
from ssl_swin.quoting import override
from ssl_swin.runs.sweep_table import (
    FINISHED,
    RECORD,
    STOPPED,
    last_value,
    read_jobs,
    record_job,
    write_table,
)
from ssl_swin.stopping.stopped import TIME_LIMIT

STOPPED_FROM = 128  # exit codes of jobs that were told to stop: then the sweep stops too
UNKNOWN, REFUSED = 1, 2
MULTIRUN = "multirun.yaml"  # which Hydra writes before the jobs


class SweepFolder(Callback):
    """Remembers the folder of the sweep that this process has begun."""

    path: Path | None = None
    is_new = False  # whether it was not there before

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Takes the folder from the configuration."""
        SweepFolder.path = Path(str(config.hydra.sweep.dir))
        SweepFolder.is_new = not SweepFolder.path.exists()


def naming_option(options: Sequence[str]) -> list[str]:
    """Return the option by which jobs are called by what a sweep varies, and by nothing else.

    Args:
        options: The command line, as Hydra can read it.
    """
    if not {"-m", "--multirun"} & set(options):
        return []
    overrides = [o for o in options if ("=" in o and not o.startswith("-")) or o.startswith("~")]
    parsed = OverridesParser.create().parse_overrides(overrides)
    fixed = {o.key_or_group for o in parsed if not o.is_sweep_override()}
    keys = sorted({*fixed, "name"})
    return [override("hydra.job.config.override_dirname.exclude_keys", keys)]


def run_in_sweep(cfg: DictConfig, run: Callable[[], float]) -> float:
    """Run a job; in a sweep it fails alone, and writes down how it ended.

    Args:
        cfg: Configuration of the job.
        run: Runs it and returns its result.

    Returns:
        The result; nan if the job failed.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return run()
    _start_processes_as_usual()
    folder = Path(hydra.runtime.output_dir)
    facts = {
        "settings": _varied(hydra),
        "metric": cfg.get("optimized_metric"),
        "started": time.time(),
    }
    record_job(folder, **facts, status="running", exit_code=UNKNOWN)
    value, code = math.nan, 0
    try:
        value = run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else UNKNOWN
    except Exception:
        traceback.print_exc()
        code = UNKNOWN
    is_stopped = code == TIME_LIMIT or code >= STOPPED_FROM
    status = FINISHED if code == 0 else STOPPED if is_stopped else "failed"
    known = None if math.isnan(value) else value
    record_job(folder, **facts, status=status, exit_code=code, value=known)
    if code >= STOPPED_FROM:
        sys.exit(code)
    return value


def result_of(cfg: DictConfig) -> float:
    """Return the metric by which a finished run is judged: that of its best weights, or the last.

    Args:
        cfg: Configuration of the job.
    """
    metric = cfg.get("optimized_metric")
    if metric is None:
        return math.nan
    return last_value(Path(str(cfg.run_dir)) / "metrics.csv", [f"{metric}_best", str(metric)])


@contextmanager
def jobs_without_result() -> Iterator[None]:
    """Go on to the table where submitit raises that a job left no result.

    Such a job was stopped or killed, which the table and the lines below it say.
    """
    try:
        yield
    except Exception as error:
        if SweepFolder.path is None or not type(error).__module__.startswith("submitit."):
            raise
        _tell(f"a job left no result; what it printed is in {SweepFolder.path}/.submitit")


def conclude_sweep(since: float) -> int:
    """Print the table of the sweep that this process has run, if it has run one.

    Args:
        since: When it began.

    Returns:
        0, or the exit code of the first job that failed, or else of the first that was stopped.
    """
    folder = SweepFolder.path
    if folder is None:
        return 0
    try:
        jobs = read_jobs(folder)
    except UserError:
        jobs = {}
    if SweepFolder.is_new and _came_to_nothing(folder, jobs):
        with suppress(OSError):
            remove(folder)
    elif jobs:
        table = write_table(folder)
        print(f"\n{table}\n  table      {folder}/sweep.csv\n{_figure(folder)}", flush=True)
    ours = {name: job for name, job in jobs.items() if job.get("started", 0) >= since}
    left = {name: job for name, job in ours.items() if job.get("status") != FINISHED}
    stopped = [name for name, job in left.items() if job.get("status") == STOPPED]
    failed = [name for name in left if name not in stopped]
    if failed:
        _tell(f"{len(failed)} of {len(ours)} jobs did not finish: {', '.join(failed)}")
    if stopped:
        names = f"{', '.join(stopped)}; the same command continues"
        _tell(f"{len(stopped)} of {len(ours)} jobs stopped before their end: {names}")
    first = next(iter([*failed, *stopped]), None)
    return 0 if first is None else int(left[first].get("exit_code") or UNKNOWN)


def _start_processes_as_usual() -> None:
    """Leave joblib's way to start processes, which only processes of its own can be started in."""
    usual = multiprocessing.get_all_start_methods()
    if multiprocessing.get_start_method() not in usual:
        multiprocessing.set_start_method(usual[0], force=True)


def _came_to_nothing(folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether all jobs were refused before anything of them was written."""
    left = {path.name for path in folder.rglob("*") if not path.is_dir()}
    refused = all(job.get("exit_code") == REFUSED for job in jobs.values())
    return refused and left <= {RECORD, MULTIRUN}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _figure(folder: Path) -> str:
    """Draw the sweep, and say where or why not: a picture is never what a sweep fails by."""
    from ssl_swin.reporting.sweep_figure import write_sweep_figure

    try:
        return f"  figure     {write_sweep_figure(folder)}"
    except Exception as error:
        return f"  figure     none: {type(error).__name__}: {error}"


def _varied(hydra: Any) -> dict[str, str]:
    excluded = set(hydra.job.config.override_dirname.exclude_keys)
    parsed = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    given = {o.key_or_group: str(o.get_value_element_as_str()) for o in parsed}
    varied = {key: value for key, value in given.items() if key not in excluded}
    return varied or {key: value for key, value in given.items() if key == "name"}

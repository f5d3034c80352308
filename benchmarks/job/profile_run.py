"""One pretraining run with clocks in it; `benchmarks.job` starts it and reads its report.

python -m benchmarks.job.profile_run REPORT STARTED STOP_AT [SETTING=VALUE ...]

REPORT is the JSON file to write, STARTED the time at which the command was given, STOP_AT the
optimiser step to end at; at 1 the process leaves with the step.
"""

import importlib
import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_swin.launch import script

if TYPE_CHECKING:
    from benchmarks.job.clock import RunClock

SCRIPT = Path(__file__).parents[2] / "pretrain.py"


class TimedJob:
    """Runs a job as the script would, and reports on it."""

    def __init__(self, report: Path, started: float, stop_at: int) -> None:
        self.report = report
        self.started = started
        self.stop_at = stop_at
        self.moments: dict[str, float] = {}
        self.clock: RunClock | None = None
        self._run_job = script.run_job
        self.note("python")

    def note(self, moment: str) -> None:
        """Remembers when something happened first, in seconds since the command."""
        self.moments.setdefault(moment, time.time() - self.started)

    def __call__(self, job: str, cfg: Any) -> None:
        """Takes the place of `run_job`."""
        self.note("composed")
        module = importlib.import_module(f"ssl_swin.jobs.{job}")
        self.note("imported")
        from benchmarks.job.clock import RunClock

        leave = self._leave if self.stop_at == 1 else None
        self.clock = RunClock(self.note, self.stop_at, leave)
        self.clock.hang_on(module)
        self._run_job(job, cfg)

    def write(self) -> None:
        """Writes the report."""
        facts = {} if self.clock is None else self.clock.facts()
        self.report.write_text(json.dumps({"moments": self.moments, **facts}))

    def _leave(self, reason: str) -> None:
        self.write()
        os._exit(0)  # no checkpoint, no hand-off: only the start was asked for


def main() -> None:
    """Runs the script under the clocks."""
    report, started, stop_at, *overrides = sys.argv[1:]
    job = TimedJob(Path(report), float(started), int(stop_at))
    script.run_job = job
    sys.argv = [SCRIPT.name, *overrides]
    runpy.run_path(str(SCRIPT), run_name="__main__")
    job.write()


if __name__ == "__main__":
    main()

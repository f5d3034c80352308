"""Memory and open files of a real run's processes, while it trains."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_swin.runs.metrics_rows import step_of
from ssl_swin.runs.metrics_tail import lines_from_end

ROOT = Path(__file__).parents[2]
SETTINGS = (  # a model so small that a step takes some hundredths of a second
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=2000",
    "data.prepare.num_val=64",
    "batch_size=4",
    "num_workers=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.max_epochs=1000",
    "trainer.log_every_n_steps=1",
    "callbacks.reconstructions.every_n_steps=100",
    "name=long_run",
)
KIBIBYTES_A_MEBIBYTE = 1024


class Use(NamedTuple):
    """What the processes of one kind use together.

    Attributes:
        step: Of the run, when it was read.
        rss_mib: Resident memory; what several share counts for each.
        pss_mib: The same, what n processes share counting 1 / n for each.
        num_files: Open file descriptors.
    """

    step: int
    rss_mib: float
    pss_mib: float
    num_files: int


def watch(
    folder: Path, num_steps: int, interval_s: float, more: Sequence[str] = ()
) -> dict[str, list[Use]]:
    """Train, and look at the run's processes at intervals.

    Args:
        folder: Where it runs.
        num_steps: Optimiser steps.
        interval_s: Seconds from look to look.
        more: Further settings.

    Returns:
        What was seen, by kind of process.

    Raises:
        SystemExit: If the run fails, with the end of what it printed.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    command = [sys.executable, str(ROOT / "pretrain.py"), *SETTINGS]
    seen: dict[str, list[Use]] = {}
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [*command, f"trainer.max_steps={num_steps}", *more],
            cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        while process.poll() is None:
            time.sleep(interval_s)
            step = _last_step(folder / "runs/pretrain/long_run/metrics.csv")
            for kind, use in look(process.pid, step).items() if step > 0 else ():
                seen.setdefault(kind, []).append(use)
    if process.returncode:
        sys.exit((folder / "output.txt").read_text()[-2000:])
    return seen


def look(pid: int, step: int) -> dict[str, Use]:
    """Return what a process and those that it started use, by kind."""
    found: dict[str, list[Use]] = {}
    for each in _with_children(pid):
        try:
            kind, use = "main" if each == pid else _kind(each), _use(each, step)
            found.setdefault(kind, []).append(use)
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
    return {kind: _together(step, uses) for kind, uses in found.items()}


def slope(uses: Sequence[Use], of: str, after: float) -> float:
    """Return by how much a number grows in 1,000 steps, as a straight line fits it best.

    Args:
        uses: At least two.
        of: Name of the number.
        after: Share of the run left out, at its start.
    """
    first = after * uses[-1].step
    kept = [use for use in uses if use.step >= first]
    steps, values = ([float(getattr(use, name)) for use in kept] for name in ("step", of))
    return float(1000 * np.polyfit(steps, values, 1)[0])


def _last_step(metrics: Path) -> int:
    try:
        with metrics.open("rb") as file:
            return step_of(next(lines_from_end(file, len(file.readline()))))
    except (FileNotFoundError, StopIteration, ValueError):
        return 0


def _with_children(pid: int) -> Iterable[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield from _with_children(int(child))


def _kind(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return "wandb" if "wandb" in command.partition("\0")[0] else "workers"


def _use(pid: int, step: int) -> Use:
    _, *lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    words = [line.split() for line in lines]
    kibibytes = {name: int(number) for name, number, *_ in words}
    rss, pss = (kibibytes[name] / KIBIBYTES_A_MEBIBYTE for name in ("Rss:", "Pss:"))
    return Use(step, rss, pss, num_files=len(os.listdir(f"/proc/{pid}/fd")))


def _together(step: int, uses: Sequence[Use]) -> Use:
    return Use(step, *(sum(column) for column in list(zip(*uses, strict=True))[1:]))

"""Files of a run of any length, written and read by the package's own classes, without training."""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from ssl_swin.reporting.page import write_report
from ssl_swin.runs.metrics_file import MetricsFile
from ssl_swin.training.dashboards import dashboard
from ssl_swin.training.metrics_csv import MetricsCsv
from ssl_swin.training.progress import StepAt

STEPS_PER_EPOCH = 2500
BATCH = 128
KIBIBYTES_A_MEBIBYTE = 1024
FORGET_PEAK = "5"  # told to the kernel: the peak of memory is counted anew from here
# What a pretraining logs: at each row, and besides at the end of an epoch.
OF_A_ROW = (
    "train/loss",
    "optim/grad_norm",
    "optim/lr",
    "health/skipped_steps",
    "health/collapse",
    "perf/samples_per_s",
    "perf/data_wait_frac",
    "data/bad_samples",
    "data/bad_ratio",
)
OF_AN_EPOCH = ("val/loss", "val/loss_vs_mean")
OF_TEN_EPOCHS = tuple(f"probe/knn_top1/stage{stage}" for stage in range(1, 5))


class Done(NamedTuple):
    """What one act took, in a process of its own.

    Attributes:
        seconds: It lasted.
        size_bytes: Of what it wrote.
        peak_mib: Memory of the process at most.
        grown_mib: How much of that came while the act lasted.
    """

    seconds: float
    size_bytes: int
    peak_mib: float
    grown_mib: float


def rows(num_steps: int, every: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield step and values of each row of a run.

    Args:
        num_steps: Of the run.
        every: Steps from row to row.
    """
    draw, seen = np.random.default_rng(0), 0
    for step in range(every, num_steps + 1, every):
        names = OF_A_ROW
        if step // STEPS_PER_EPOCH > seen:
            seen = step // STEPS_PER_EPOCH
            names += OF_AN_EPOCH + (OF_TEN_EPOCHS if seen % 10 == 0 else ())
        yield step, dict(zip(names, draw.random(len(names)).tolist(), strict=True))


def write_metrics(folder: Path, num_steps: int, every: int) -> None:
    """Write metrics.csv as training does."""
    at = StepAt()
    _log(MetricsCsv(folder / "metrics.csv", resume=False, progress=at), at, num_steps, every)


def reopen(folder: Path, num_steps: int, every: int) -> None:
    """Continue metrics.csv at a checkpoint a thousand steps before its end."""
    at = StepAt(num_steps - 1000)
    metrics = MetricsCsv(folder / "metrics.csv", resume=True, progress=at)
    metrics.forget_after(at.step)
    metrics.log_metrics({"train/loss": 0.5})
    assert not metrics.note, metrics.note


def report(folder: Path, num_steps: int, every: int) -> None:
    """Write report.html."""
    write_report(folder)


def write_wandb(folder: Path, num_steps: int, every: int) -> None:
    """Log to Weights & Biases offline as training does."""
    _write_dashboard(_wandb(folder), num_steps, every)


def catch_up_wandb(folder: Path, num_steps: int, every: int) -> None:
    """Write that file anew from metrics.csv, as a continued run does."""
    _catch_up(_wandb(folder), folder, num_steps)


def write_tensorboard(folder: Path, num_steps: int, every: int) -> None:
    """Log to TensorBoard as training does."""
    _write_dashboard(_tensorboard(folder), num_steps, every)


def catch_up_tensorboard(folder: Path, num_steps: int, every: int) -> None:
    """Write those files anew from metrics.csv, as a continued run does."""
    _catch_up(_tensorboard(folder), folder, num_steps)


Act = Callable[[Path, int, int], None]
ACTS: dict[str, tuple[Act, str]] = {  # in this order: the later ones need what the first wrote
    "metrics.csv: written": (write_metrics, "metrics.csv"),
    "metrics.csv: opened and cut back by a continued run": (reopen, "metrics.csv"),
    "report.html": (report, "report.html"),
    "W&B offline: written": (write_wandb, "wandb"),
    "W&B offline: written anew by a continued run": (catch_up_wandb, "wandb"),
    "TensorBoard: written": (write_tensorboard, "tensorboard"),
    "TensorBoard: written anew by a continued run": (catch_up_tensorboard, "tensorboard"),
}


def measure(num_steps: int, every: int, names: list[str]) -> dict[str, Done]:
    """Do each act in a process of its own.

    Args:
        num_steps: Of the run.
        every: Steps from row to row.
        names: Of the acts.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in names:
            with context.Pool(1) as pool:
                found[name] = pool.apply(_measured, (name, Path(folder), num_steps, every))
    return found


def _measured(name: str, folder: Path, num_steps: int, every: int) -> Done:
    os.environ["WANDB_SILENT"] = "true"
    act, left = ACTS[name]
    Path("/proc/self/clear_refs").write_text(FORGET_PEAK)
    before, start = _peak_mib(), time.perf_counter()
    act(folder, num_steps, every)
    seconds, peak = time.perf_counter() - start, _peak_mib()
    return Done(seconds, _size_bytes(folder / left), peak, peak - before)


def _log(logger: Logger, at: StepAt, num_steps: int, every: int) -> None:
    for step, values in rows(num_steps, every):
        at.step, at.samples_seen = step, BATCH * step
        logger.log_metrics({"epoch": step // STEPS_PER_EPOCH, **values})
    logger.finalize("success")


def _write_dashboard(logger: Logger, num_steps: int, every: int) -> None:
    at = StepAt()
    _log(dashboard(logger, at), at, num_steps, every)
    _finish(logger)


def _catch_up(logger: Logger, folder: Path, num_steps: int) -> None:
    at, metrics = StepAt(num_steps), MetricsFile(folder / "metrics.csv")
    metrics.read()
    dashboard(logger, at).catch_up(metrics, num_steps)
    _finish(logger)


def _finish(logger: Logger) -> None:
    experiment: Any = logger.experiment
    if hasattr(experiment, "finish"):
        experiment.finish()


def _wandb(folder: Path) -> Logger:
    return WandbLogger(project="long_run", save_dir=folder, offline=True, id="longrun", name="run")


def _tensorboard(folder: Path) -> Logger:
    return TensorBoardLogger(folder, name="tensorboard", version="")


def _peak_mib() -> float:
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) / KIBIBYTES_A_MEBIBYTE


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files if not each.is_symlink())

"""What a run says at its end."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning.pytorch import Trainer
from timm.models import parse_model_name

from ssl_swin.data.loading.protocol import Split
from ssl_swin.launch.fitting import close_loggers
from ssl_swin.launch.printing import say
from ssl_swin.launch.run import Run
from ssl_swin.quoting import shell_path
from ssl_swin.reporting.curves import read_curves
from ssl_swin.reporting.page import write_report
from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.training.callbacks.bad_samples import BadSamples
from ssl_swin.training.callbacks.collapse_alarm import CollapseAlarm
from ssl_swin.training.callbacks.skipped_steps import SkippedSteps
from ssl_swin.weights.backbone import import_for_timm
from ssl_swin.weights.cards import Training

TELLING = (BadSamples, SkippedSteps, CollapseAlarm)  # callbacks with a line at the end


def training_facts(run: Run, trainer: Trainer, reader: Split, objective: str) -> Training:
    """Collects what a model card states."""
    return Training(
        run_name=run.name,
        data=run.config["data"]["root"],
        data_fingerprint=reader.fingerprint,
        num_images=reader.num_samples,
        steps=trainer.global_step,
        epochs=trainer.current_epoch,
        objective=objective,
        losses=_measured(run, trainer),
    )


def finish(
    run: Run,
    trainer: Trainer,
    *,
    results: Callable[[], Sequence[tuple[str, str]]],
    next_steps: Callable[[], Sequence[str]],
) -> None:
    """Writes report and status, closes the loggers, and says where everything is.

    Args:
        run: The run.
        trainer: After the last step.
        results: Returns (what, where) besides the report and the metrics; asked on the first
            process alone, which has written them.
        next_steps: Returns what to type now, or what is missing for it.
    """
    close_loggers(trainer.loggers)
    if not trainer.is_global_zero:
        return
    steps = next_steps()
    measured = _measured(run, trainer)
    seconds = run.folder.finish(time.time() - run.started, next_steps=steps, measured=measured)
    done = f"\nfinished {run.name}: {trainer.global_step:,} steps, {_minutes(seconds)}"
    lines = [
        "; ".join(filter(None, (done, measured))),
        *_notes(trainer),
        *closing_lines(run, results()),
    ]
    if failed := SideFailures(run.folder.path).summary():
        lines.insert(1, f"  note: {failed}")
    if steps:
        lines += ["next:", *(f"  {step}" for step in steps)]
    say("\n".join(lines))


def closing_lines(run: Run, results: Sequence[tuple[str, str]]) -> list[str]:
    """Writes the report; lists where it and the other results are."""
    everything = [("metrics", str(run.folder.metrics)), *results]
    with SideFailures(run.folder.path, tell=say).allowed("the report", "the run is whole"):
        everything.insert(0, ("report", str(write_report(run.folder.path))))
    if any((run.folder.path / "wandb").glob("offline-run-*")):
        folder = shell_path(run.folder.path / "wandb")
        everything.append(("upload", f"wandb sync {folder}/offline-run-*"))
    return [f"  {what:<10} {where}" for what, where in everything]


def timm_line(folder: Path, **arguments: int) -> str:
    """Return the Python by which timm loads an exported folder.

    Args:
        folder: What was exported.
        arguments: Further ones of `timm.create_model`.
    """
    address = f"local-dir:{folder}"
    if parse_model_name(address) != ("local-dir", str(folder)):
        return "timm reads it from a folder with a plainer name"
    more = "".join(f", {name}={value}" for name, value in arguments.items())
    address = json.dumps(address, ensure_ascii=False)
    return f"{import_for_timm(folder)}timm.create_model({address}, pretrained=True{more})"


def _notes(trainer: Trainer) -> list[str]:
    """Return what a reader of the numbers should know besides them."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, TELLING)]  # type: ignore[attr-defined]
    return [f"  note: {callback.summary()}" for callback in found if callback.summary()]


def _measured(run: Run, trainer: Trainer) -> str:
    """Return the last metrics in a row; where no step was made, those of an earlier start.

    A run that was finished has written them down; of one that was killed between its last step and
    its end, the file of metrics has them.
    """
    now = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return _in_a_row(now) or run.folder.measured() or _in_a_row(_last_in_file(run.folder.metrics))


def _last_in_file(metrics: Path) -> dict[str, float]:
    curves = read_curves(metrics) if metrics.is_file() else []
    return {curve.name: curve.values[-1] for curve in curves}


def _in_a_row(metrics: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {_in_words(name, value)}"
        for name, value in metrics.items()
        if name == "train/loss" or name.startswith(("val/", "test/"))
    )


def _in_words(name: str, value: float) -> str:
    """Return a metric's value; a ratio of which nothing can be divided by has none."""
    return "none" if math.isnan(value) and not name.endswith("/loss") else f"{value:.4f}"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

"""From the clocks of a short run to the shares of the whole one; `FORMULA` says how."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

# Before the first step, every N, after the last.
PICTURES = {"Reconstructions", "FeaturePictures", "Probes"}
OCCASIONAL = PICTURES | {"StepCheckpoint"}
FORMULA = """\
whole run = batches * median s of a batch
          + times * mean s of one, for validations, pictures, probes and checkpoints
What is done at every step is part of a batch: it is listed, and not added again. Start-up and what
comes after the last step are left out."""


class Length(NamedTuple):
    """How much there is of a run."""

    epochs: int
    steps: int
    batches: int
    validations: int


class Share(NamedTuple):
    """What one monitor takes."""

    name: str
    events: int  # in the short run
    event_s: float | None  # None where the short run had no event
    whole_events: int
    whole_s: float
    ratio: float  # of the whole run


def whole_length(trainer: Mapping[str, Any], batches_per_epoch: int) -> Length:
    """Length of the run that a configuration's `trainer` section describes."""
    steps_per_epoch = math.ceil(batches_per_epoch / trainer["accumulate_grad_batches"])
    epochs = trainer["max_epochs"]
    if trainer["max_steps"] > 0:
        at_most = math.ceil(trainer["max_steps"] / steps_per_epoch)
        epochs = at_most if epochs in (None, -1) else min(epochs, at_most)
    validations = epochs // trainer["check_val_every_n_epoch"]
    return Length(epochs, epochs * steps_per_epoch, epochs * batches_per_epoch, validations)


def num_events(name: str, settings: Iterable[Mapping[str, Any]], length: Length) -> int:
    """How often a monitor does its work.

    Args:
        name: Its class.
        settings: Of each callback of the class; ignored for what works at every step.
        length: Of the run; `epochs` counts those that have ended, if only by stopping.
    """
    if name in PICTURES:
        return sum(1 + math.ceil(length.steps / each["every_n_steps"]) for each in settings)
    if name == "StepCheckpoint":
        return sum(_num_checkpoints(each, length) for each in settings)
    return length.steps


def _num_checkpoints(settings: Mapping[str, Any], length: Length) -> int:
    every_n_epochs = settings.get("every_n_epochs")
    every_n_steps = settings.get("every_n_train_steps")
    by_epoch = length.epochs // every_n_epochs if every_n_epochs else 0
    return by_epoch + (length.steps // every_n_steps if every_n_steps else 0)


def settings_by_class(callbacks: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Sorts a configuration's `callbacks` section by class."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for settings in callbacks.values():
        if isinstance(settings, Mapping):
            found.setdefault(settings["_target_"].rpartition(".")[2], []).append(settings)
    return found


def shares(report: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[float, list[Share]]:
    """Extrapolates a short run's report to the run that its configuration describes.

    Args:
        report: What `benchmarks.job.profile_run` wrote.
        config: The run's config.yaml.

    Returns:
        Seconds of the whole run, and the share of each monitor and of validation, largest first.
    """
    short = Length(report["num_epochs"], report["num_steps"], 0, report["num_validations"])
    whole = whole_length(config["trainer"], report["batches_per_epoch"])
    settings = settings_by_class(config["callbacks"])
    rows = [("validation", report["validation_s"], short.validations, whole.validations)]
    for name, seconds in report["hook_s"].items():
        events, whole_events = (
            num_events(name, settings.get(name, []), length) for length in (short, whole)
        )
        rows.append((name, seconds, events, whole_events))
    event_s = {name: seconds / events if events else None for name, seconds, events, _ in rows}
    apart = OCCASIONAL | {"validation"}
    whole_s = whole.batches * statistics.median(report["batch_s"]) + sum(
        times * (event_s[name] or 0.0) for name, _, _, times in rows if name in apart
    )
    found = []
    for name, _, events, times in rows:
        seconds = times * (event_s[name] or 0.0)
        found.append(Share(name, events, event_s[name], times, seconds, seconds / whole_s))
    return whole_s, sorted(found, key=lambda share: -share.whole_s)


def data_wait_ratio(rows: Iterable[Mapping[str, str]], *, skip: int = 1) -> float:
    """Share of the time in training steps that waits for data, from the rows of metrics.csv.

    Each row stands for as many images, so its time is in proportion to 1 / images per second.

    Args:
        rows: Of metrics.csv.
        skip: Rows left out at the start, in which the workers start too.
    """
    told = [
        (float(row["perf/data_wait_frac"]), 1 / float(row["perf/samples_per_s"]))
        for row in rows
        if row.get("perf/samples_per_s")
    ][skip:]
    if not told:
        return math.nan
    return sum(wait * time for wait, time in told) / sum(time for _, time in told)


def num_workers(images_per_s: float, worker_images_per_s: float) -> int:
    """Loading processes that keep up with a speed of training, a core each."""
    return math.ceil(images_per_s / worker_images_per_s)


def phases(moments: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median seconds between successive moments of several starts."""
    names = list(moments[0])
    before = [None, *names[:-1]]
    return {
        name: statistics.median(
            each[name] - (0.0 if earlier is None else each[earlier]) for each in moments
        )
        for earlier, name in zip(before, names, strict=True)
    }

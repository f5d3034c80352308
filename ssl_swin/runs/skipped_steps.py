"""Steps that a run left out because something in them was not finite: a file for each."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically

FOLDER = "nonfinite"  # of a run


@dataclass(frozen=True)
class SkippedBatch:
    """One batch of such a step on one rank.

    Attributes:
        rank: Number of the rank.
        number: Which batch of the step it was, with accumulation; from 0.
        loss: As `float.hex` writes it, or nan, inf, -inf.
        random_key: What dropped paths and mixing were drawn from.
        epoch: Passes over the data before it; None where the data has no places.
        position: Samples of the epoch before it, over all ranks.
        names: Names of its images.
        beside: Epoch and position in a second source, whose names come after those of the first;
            None where there is none.
    """

    rank: int
    number: int
    loss: str
    random_key: Sequence[int | str]
    epoch: int | None
    position: int | None
    names: Sequence[str]
    beside: Sequence[int] | None = None

    @property
    def is_finite(self) -> bool:
        """Whether its loss is a number."""
        return math.isfinite(float.fromhex(self.loss))


@dataclass(frozen=True)
class SkippedStep:
    """What repeats such a step.

    Attributes:
        step: Optimiser steps before it, as in metrics.csv.
        reason: What was not finite, as a phrase.
        weights: File beside the record with the weights before the step; None if not kept.
        precision: Lightning's name of the number format.
        loss_scale: Factor of the loss in fp16; else 1.
        batch_size: Images per device.
        world_size: Number of ranks.
        accumulated: Batches that each rank adds up for a step; an epoch's last step may have fewer,
            and its gradient is divided by this number all the same.
        batches: Those of all ranks.
        gradient_norm: Of the whole step, before clipping, as a loss is written; None in records of
            earlier versions, as all that follows.
        num_threads: Threads that the first rank computed with, which sums on a CPU depend on.
    """

    step: int
    reason: str
    weights: str | None
    precision: str
    loss_scale: float
    batch_size: int
    world_size: int
    accumulated: int
    batches: Sequence[SkippedBatch]
    gradient_norm: str | None = None
    num_threads: int | None = None

    def write(self, folder: Path) -> Path:
        """Writes the record; returns its path."""
        path = folder / f"step_{self.step:07d}.json"
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")
        return path


def recorded_steps(run: Path) -> list[int]:
    """Return the steps that a run left out and of which there is a record, in order."""
    return sorted(int(path.stem.removeprefix("step_")) for path in _records(run / FOLDER))


def read_skipped_step(run: Path, step: int) -> SkippedStep:
    """Return the record of a step.

    Args:
        run: The run's folder.
        step: Number of the step.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    path = run / FOLDER / f"step_{step:07d}.json"
    if not path.is_file():
        known = ", ".join(map(str, recorded_steps(run)[-20:])) or "none"
        raise UserError(f"{run} has no record of step {step}; steps with one: {known}")
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        batches = [SkippedBatch(**batch) for batch in record.pop("batches")]
        return SkippedStep(**record, batches=batches)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def keep_newest(folder: Path, *, records: int, weights: int) -> None:
    """Remove the oldest files of a folder of records.

    Args:
        folder: The folder.
        records: Number of records that stay.
        weights: Number of files with weights that stay.
    """
    for files, number in ((_records(folder), records), (folder.glob("weights_*.pt"), weights)):
        for path in sorted(files, reverse=True)[number:]:
            path.unlink(missing_ok=True)


def _records(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step_*.json") if path.stem[5:].isdigit()]

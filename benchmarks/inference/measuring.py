"""Times of variants in turn, and how far their answers are from the first one's."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.inference.subject import Subject, top1
from benchmarks.inference.variants import REFERENCE, Run

_JUDGED_AT_ONCE = 32


@dataclass
class Facts:
    """What is measured of a variant at a batch size.

    Attributes:
        difference: Largest one of a score to the reference's.
        first_s: Of the first call, which may compile.
        wall_s: Of a call, in every round.
        cpu_s: Of a call, over all threads, in every round.
    """

    difference: float
    first_s: float
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Everything measured at a batch size.

    Attributes:
        batch_size: Number of images in a call.
        largest_score: Of the reference, in absolute value.
        variants: By name.
    """

    batch_size: int
    largest_score: float
    variants: dict[str, Facts]


def compare(subject: Subject, runs: Mapping[str, Run], batch_size: int, rounds: int) -> Comparison:
    """Run all variants in turn on the same pixels; the first calls do not count.

    Args:
        subject: Where the pixels come from.
        runs: By name; the reference must be among them.
        batch_size: Number of images.
        rounds: Turns of each.
    """
    pixels = subject.pixels(batch_size)
    expected = runs[REFERENCE](pixels)
    variants = {}
    for name, run in runs.items():
        started = time.perf_counter()
        scores = run(pixels)
        first_s = time.perf_counter() - started
        run(pixels)  # some runtimes settle in the second call
        variants[name] = Facts((scores - expected).abs().max().item(), first_s)
    for _ in range(rounds):
        for name, run in runs.items():
            started, busy = time.perf_counter(), time.process_time()
            run(pixels)
            variants[name].cpu_s.append(time.process_time() - busy)
            variants[name].wall_s.append(time.perf_counter() - started)
    return Comparison(batch_size, expected.abs().max().item(), variants)


def accuracies(subject: Subject, runs: Mapping[str, Run]) -> dict[str, float]:
    """Return the share of right answers of each variant, in [0, 1]; nothing without images."""
    labelled = subject.labelled
    if labelled is None:
        return {}
    return {
        name: top1(_scores(run, labelled.pixels), labelled.labels) for name, run in runs.items()
    }


def _scores(run: Run, pixels: Tensor) -> list[Tensor]:
    """Return scores of all images, in batches of one size, for which a variant may be compiled."""
    missing = -len(pixels) % _JUDGED_AT_ONCE
    padded = torch.cat([pixels, pixels[:1].expand(missing, *pixels.shape[1:])])
    scores = torch.cat([run(batch.contiguous()) for batch in padded.split(_JUDGED_AT_ONCE)])
    return [scores[: len(pixels)]]

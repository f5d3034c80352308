"""How long linear heads take to train, measured at small sizes, and what that says of large ones.

python -m benchmarks.features.probe                    # CPU, and the GPU where there is one
python -m benchmarks.features.probe --batch-size 4096

A cell trains heads by `fit_linear_heads` (LARS) on random features. A sample of an epoch costs

    a + b * C + c * heads * classes + d * C * heads * classes   seconds,

fitted by least squares of relative errors, none negative. Cells that the fit has not seen say how
good it is. The prediction for ImageNet assumes that this holds at its size, that the features are
in memory, and that nothing else uses the machine.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls

from benchmarks.tables import write_json
from ssl_swin.probing.features import Features
from ssl_swin.probing.fitting import fit_linear_heads


class Cell(NamedTuple):
    """One size of the problem."""

    samples: int
    width: int
    classes: int
    heads: int


SIZES = {  # samples by device: enough for a few steps
    "cpu": (2048, ((64, 10), (64, 100), (256, 100), (256, 400)), (512, 400)),
    "cuda": (131072, ((128, 100), (512, 100), (512, 1000), (1024, 500)), (1024, 1000)),
}
HEADS = (1, 6)
BATCH_SIZES = {"cpu": 256, "cuda": 16384}
IMAGENET_IMAGES, IMAGENET_CLASSES = 1_281_167, 1000
SWIN_B_WIDTHS = (128, 256, 512, 1024)  # of the maps after the stages, the last one normed
EPOCHS, POOLINGS, RATES = 90, 2, 6


def epoch_s(cell: Cell, batch_size: int, device: str, rounds: int) -> float:
    """Seconds of an epoch: the median of `rounds`, after one that does not count."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(cell.samples, cell.width, generator=generator)
    labels = torch.randint(cell.classes, (cell.samples,), generator=generator)
    ends = []

    def note(epoch: int, losses: list[float]) -> None:  # the losses have left the device
        ends.append(time.perf_counter())

    fit_linear_heads(
        Features(features, labels),
        num_classes=cell.classes,
        optimizer="lars",
        base_lrs=[0.1] * cell.heads,
        batch_size=batch_size,
        epochs=rounds + 1,
        warmup_epochs=0,
        weight_decay=0.0,
        momentum=0.9,
        seed=0,
        device=device,
        on_epoch_end=note,
    )
    return statistics.median(np.diff(ends).tolist())


def terms(cell: Cell) -> NDArray[np.float64]:
    """What the time of a sample is made of."""
    scores = cell.heads * cell.classes
    return np.array([1, cell.width, scores, cell.width * scores], dtype=np.float64)


def fitted(cells: Sequence[Cell], seconds: Sequence[float]) -> NDArray[np.float64]:
    """Fits the cost of each term, in seconds per sample."""
    rows = [cell.samples * terms(cell) / s for cell, s in zip(cells, seconds, strict=True)]
    costs: NDArray[np.float64] = nnls(np.array(rows), np.ones(len(rows)))[0]
    return costs


def predicted_s(cell: Cell, costs: NDArray[np.float64]) -> float:
    """Seconds of an epoch."""
    return float(cell.samples * terms(cell) @ costs)


def measure(device: str, batch_size: int, rounds: int) -> dict[str, object]:
    """Measures, fits, checks and predicts on one device; prints as it goes."""
    samples, shapes, held_out = SIZES[device]
    cells = [Cell(samples, *shape, heads) for shape in shapes for heads in HEADS]
    seconds = []
    print(f"batches of {batch_size}\n samples  width classes heads   s/epoch  s/head")
    for cell in cells:
        seconds.append(epoch_s(cell, batch_size, device, rounds))
        print(f"{cell.samples:8} {cell.width:6} {cell.classes:7} {cell.heads:5}", end="")
        print(f"{seconds[-1]:10.4f}{seconds[-1] / cell.heads:8.4f}")
    costs = fitted(cells, seconds)
    named = zip(costs, ("", " C", " heads*classes", " C*heads*classes"), strict=True)
    print("fit, s per sample: " + " + ".join(f"{cost:.2e}{name}" for cost, name in named))
    checks = []
    for unseen in (Cell(samples, *held_out, 3), Cell(2 * samples, *held_out, 6)):
        measured, expected = epoch_s(unseen, batch_size, device, rounds), predicted_s(unseen, costs)
        checks.append(expected / measured)
        print(f"unseen {tuple(unseen)}: {measured:.3f} s, predicted {checks[-1]:.2f} times that")
    return {
        "cells": cells,
        "seconds": seconds,
        "costs": costs.tolist(),
        "predicted_over_measured": checks,
        "imagenet_s": imagenet_s(costs),
    }


def imagenet_s(costs: NDArray[np.float64]) -> float:
    """Predicts, and prints, what probing a Swin-B on ImageNet takes once its features exist."""
    sizes = [Cell(IMAGENET_IMAGES, width, IMAGENET_CLASSES, RATES) for width in SWIN_B_WIDTHS]
    total = POOLINGS * EPOCHS * sum(predicted_s(size, costs) for size in sizes)
    heads = POOLINGS * RATES * len(sizes)
    products = 6 * POOLINGS * EPOCHS * sum(size.samples * terms(size)[-1] for size in sizes)
    print(
        f"if this holds for ImageNet-1k and a Swin-B: {heads} heads for {EPOCHS} epochs in "
        f"{total / 60:.0f} min, {total / heads:.0f} s a head; {products:.1e} operations in float32"
    )
    return total


def main() -> None:
    """Prints the tables, and with `--json` writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, help="default: 256 on a CPU, 16384 on a GPU")
    parser.add_argument("--rounds", type=int, default=3, help="epochs timed, of which the median")
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    args = parser.parse_args()
    print(f"{platform.machine()}, torch {torch.__version__}, {date.today()}")
    results = {}
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        print(f"\n{_device_name(device)}")
        results[device] = measure(device, args.batch_size or BATCH_SIZES[device], args.rounds)
    write_json(args.json, results)


def _device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()

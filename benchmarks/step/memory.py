"""Memory of a training step, with and without gradient checkpointing; on a GPU the largest batch.

python -m benchmarks.step.memory --models swin_t swin_b --batch-size 128 --reference PATH

On a GPU it is the peak of a whole step: weights, optimiser, gradients, activations. On a CPU it is
what the forward pass keeps for the backward pass, and what checkpointing computes again is not in
it. Hugging Face checkpoints whole stages, all others blocks. Ratio: to the reference without
checkpointing. The largest batch is found by trying, to within a sixteenth, and is a lower bound.
"""

import argparse
import gc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from benchmarks.step.command import make_parser, positive, run
from benchmarks.step.comparison import BATCH_SIZES, REFERENCES
from benchmarks.step.cost import allocated_bytes, memory
from benchmarks.step.variants import Absent, build
from benchmarks.step.workload import make_workload
from benchmarks.tables import mebibytes, table

TITLES = ("variant", "checkpointing", "memory MiB", "ratio", "MiB/image", "largest batch")
FIRST_BATCH = 16  # that is tried

Cell = dict[str, Any]  # variant, whether checkpointed, and bytes or the reason why there are none


def largest(fits: Callable[[int], bool], first: int) -> int:
    """Finds the largest batch that fits, to within a sixteenth of it; 0 if `first` does not.

    Args:
        fits: Says whether a batch size does.
        first: Tried first, then doubled.
    """
    if not fits(first):
        return 0
    low, high = first, 2 * first
    while fits(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def step_bytes(name: str, original: ModuleType | None, **workload: Any) -> int | str:
    """Memory of a step of one variant alone, in bytes, or why there is none.

    Args:
        name: Of the variant.
        original: See `variants.build`.
        workload: See `workload.make_workload`.
    """
    try:
        built_for = make_workload(**workload)
        others = allocated_bytes(built_for.device)
        variant = build(name, built_for, original)
        if isinstance(variant, Absent):
            return variant.reason
        mask = variant.prepare(built_for.mask(0))
        variant.model.train()
        if variant.images.device.type == "cuda":
            variant.step(mask)  # the optimiser makes its state
        return memory(variant, mask, others)
    except torch.OutOfMemoryError:
        return f"out of memory with {workload['batch_size']} images"


def largest_batch(name: str, original: ModuleType | None, **workload: Any) -> int:
    """Largest batch of a variant that fits on the GPU; see `step_bytes`."""

    def fits(batch_size: int) -> bool:
        found = step_bytes(name, original, **(workload | {"batch_size": batch_size}))
        release()
        return isinstance(found, int)

    return largest(fits, FIRST_BATCH)


def release() -> None:
    """Frees the memory of models that are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def measure_model(
    args: argparse.Namespace, original: ModuleType | None, **workload: Any
) -> list[Cell]:
    """Measures the variants of one model, without and with gradient checkpointing."""
    cells = []
    for name in args.variants:
        for checkpointing in (False, True):
            options = workload | {"grad_checkpointing": checkpointing}
            found = step_bytes(name, original, **options)
            release()
            cell = {"variant": name, "checkpointing": checkpointing, "found": found}
            if isinstance(found, int) and args.device.type == "cuda" and args.largest_batch:
                cell["largest_batch"] = largest_batch(name, original, **options)
            cells.append(cell)
    return cells


def rows(cells: list[Cell], batch_size: int) -> list[list[str]]:
    """Writes a line per measured cell."""
    plain = {each["variant"]: each["found"] for each in cells if not each["checkpointing"]}
    counts = {name: found for name, found in plain.items() if isinstance(found, int)}
    reference = next((name for name in (*REFERENCES, *counts) if name in counts), None)
    return [
        [
            each["variant"],
            "yes" if each["checkpointing"] else "no",
            mebibytes(each["found"]),
            f"{each['found'] / counts[reference]:.2f}" if reference else "-",
            mebibytes(each["found"] / batch_size),
            str(each.get("largest_batch", "-")),
        ]
        for each in cells
        if isinstance(each["found"], int)
    ]


def measure(args: argparse.Namespace, original: ModuleType | None) -> list[dict[str, Any]]:
    """Measures every model in every precision; prints as it goes."""
    batch_size = args.batch_size or BATCH_SIZES[args.device.type]
    results = []
    for model in args.models:
        for precision in args.precision:
            given = {"model": model, "precision": precision, "batch_size": batch_size}
            cells = measure_model(args, original, **given, device=args.device, seed=args.seed)
            print(f"\n{model}, {batch_size} images, {precision}")
            print(table(TITLES, rows(cells, batch_size)))
            reasons = {each["variant"]: each["found"] for each in cells}
            for name, found in reasons.items():
                if isinstance(found, str):
                    print(f"not in it: {name}: {found}")
            results.append(given | {"cells": cells})
    return results


def main(words: list[str] | None = None) -> None:
    """Prints a table per model and precision, and with `--json` writes the numbers."""
    parser = make_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["swin_nano"], help="Swins of conf/model")
    parser.add_argument("--batch-size", type=positive, help="default: 8 on a CPU, 128 on a GPU")
    parser.add_argument(
        "--largest-batch", action="store_true", help="on a GPU, try which batch still fits"
    )
    run(parser, measure, words)


if __name__ == "__main__":
    main()

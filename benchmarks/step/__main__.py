"""How long a whole training step takes: the original, others and ours, in turn, in one process.

python -m benchmarks.step --model swin_b --batch-size 128 --reference PATH

A step is forward and backward pass, gradients clipped to 5, AdamW and zero_grad. All variants start
from the same weights and see the same images and, step by step, the same masks. PATH is a checkout
of microsoft/SimMIM; without one the reference is timm's model. Mixed precision is the same autocast
for all, where the original had apex. The ratio is the median of the rounds' ratios. Memory is on a
GPU the peak of a step without what other variants hold, and on a CPU what the forward pass keeps
for the backward pass. The first step includes compilation. The share is of the rate at which the
same run multiplies large square matrices of the same type. Bringing a mask into a variant's form is
the loader's work and not part of the step; its time per batch is in the last column.

python -m benchmarks.step --model swin_nano --objectives

compares objectives instead: `benchmarks.step.objectives` says what a step of theirs is, and the
last column is then the time of decoding and augmenting a batch in one process. Losses tell nothing.
"""

import argparse
from dataclasses import asdict
from types import ModuleType
from typing import Any

from benchmarks.step.command import make_parser, positive, run
from benchmarks.step.comparison import BATCH_SIZES, STEPS, Comparison, compare
from benchmarks.step.objectives import NAMES as OBJECTIVES
from benchmarks.step.objectives import build_objective
from benchmarks.step.timing import ratios, spread
from benchmarks.step.variants import build
from benchmarks.step.workload import make_workload
from benchmarks.tables import mebibytes, table

TITLES = (
    *("variant", "step ms", "lowest to highest", "images/s", "ratio", "memory MiB"),
    *("loss", "difference", "GFLOP", "share", "first step s", "loader ms"),
)


def rows(comparison: Comparison) -> list[list[str]]:
    """Writes a line per variant."""
    variants, reference = comparison.variants, comparison.reference
    speed_ups = ratios({name: facts.seconds for name, facts in variants.items()}, reference)
    lines = []
    for name, facts in variants.items():
        step = spread(facts.seconds)
        share = facts.flops / step.median / comparison.product_rate
        apart = abs(facts.loss - variants[reference].loss)
        is_comparable = facts.is_simmim and variants[reference].is_simmim
        lines.append(
            [
                name,
                f"{1e3 * step.median:.1f}",
                f"{1e3 * step.lowest:.1f} to {1e3 * step.highest:.1f}",
                f"{comparison.batch_size / step.median:.1f}",
                f"{speed_ups[name]:.2f}",
                mebibytes(facts.memory_bytes),
                f"{facts.loss:.6f}",
                f"{apart:.1e}" if is_comparable else "-",
                f"{facts.flops / 1e9:.1f}",
                f"{share:.0%}",
                f"{facts.first_s:.1f}",
                f"{1e3 * facts.prepare_s:.1f}",
            ]
        )
    return lines


def show(comparison: Comparison) -> None:
    """Prints the table, and who is not in it."""
    if comparison.variants:
        print(table(TITLES, rows(comparison)))
        print(f"ratio and difference: to {comparison.reference}; ", end="")
        print(f"matrix product: {comparison.product_rate / 1e9:.0f} GFLOP/s")
    for name, facts in comparison.variants.items():
        if any(facts.compiled):
            print(f"compiled while timed: {name}: {sum(facts.compiled)} graphs")
    for name, reason in comparison.absent.items():
        print(f"not in it: {name}: {reason}")


def measure(args: argparse.Namespace, original: ModuleType | None) -> list[dict[str, Any]]:
    """Compares in every precision; prints as it goes."""
    results = []
    for precision in args.precision:
        workload = make_workload(
            args.model,
            batch_size=args.batch_size or BATCH_SIZES[args.device.type],
            device=args.device,
            precision=precision,
            img_size_px=args.img_size_px,
            seed=args.seed,
        )
        size = "x".join(map(str, workload.encoder.img_size_px))
        print(f"\n{args.model}, {len(workload.images)} images of {size} px, {precision}")
        comparison = compare(
            workload,
            args.variants if args.objectives is None else args.objectives or OBJECTIVES,
            original,
            rounds=args.rounds,
            steps=STEPS[args.device.type],
            build=build if args.objectives is None else build_objective,
        )
        show(comparison)
        results.append(asdict(comparison))
    return results


def main(words: list[str] | None = None) -> None:
    """Prints a table per precision, and with `--json` writes the numbers."""
    parser = make_parser(__doc__)
    parser.add_argument("--model", default="swin_nano", help="a Swin of conf/model")
    parser.add_argument("--batch-size", type=positive, help="default: 8 on a CPU, 128 on a GPU")
    parser.add_argument("--img-size-px", type=positive, help="default: the model's own")
    parser.add_argument(
        "--rounds", type=positive, default=5, help="turns of each, of which the median"
    )
    parser.add_argument(
        "--objectives",
        nargs="*",
        choices=OBJECTIVES,
        metavar="NAME",
        help="objectives instead of variants; without a name all of them",
    )
    run(parser, measure, words)


if __name__ == "__main__":
    main()

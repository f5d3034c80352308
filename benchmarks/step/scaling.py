"""How a step's time and memory grow with image size, batch, model and mask ratio.

python -m benchmarks.step.scaling [--axes image batch model ratio] [--variants dense sparse]

One thing is varied at a time. At each point the variants take turns as in benchmarks.step; points
come one after the other, so only ratios are safe from a drift of the machine. The defaults are
small on a CPU and larger on a GPU.
"""

import argparse
from dataclasses import asdict
from types import ModuleType
from typing import Any

from benchmarks.step.command import make_parser, positive, run
from benchmarks.step.comparison import STEPS, Comparison, compare
from benchmarks.step.timing import ratios, spread
from benchmarks.step.workload import make_workload
from benchmarks.tables import mebibytes, table

BASES: dict[str, dict[str, Any]] = {
    "cpu": {"model": "swin_nano", "batch_size": 4},
    "cuda": {"model": "swin_t", "batch_size": 128},
}
POINTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "cpu": {
        "image": (96, 192, 288),
        "batch": (1, 2, 4, 8, 16),
        "model": ("swin_nano", "swin_t", "swin_s"),
        "ratio": (0.3, 0.45, 0.6, 0.75, 0.9),
    },
    "cuda": {
        "image": (192, 384, 576),
        "batch": (16, 32, 64, 128, 256, 512),
        "model": ("swin_t", "swin_s", "swin_b", "swin_l"),
        "ratio": (0.3, 0.45, 0.6, 0.75, 0.9),
    },
}
SETTINGS = {
    "image": "img_size_px",
    "batch": "batch_size",
    "model": "model",
    "ratio": "mask_ratio",
}
TITLES = ("point", "variant", "step ms", "lowest to highest", "ms/image", "ratio", "memory MiB")


def measure_axis(
    axis: str, precision: str, args: argparse.Namespace, original: ModuleType | None
) -> list[dict[str, Any]]:
    """Compares the variants at every point of an axis; prints a table."""
    lines, results = [], []
    absent: dict[str, str] = {}
    kind = args.device.type
    for point in POINTS[kind][axis]:
        workload = make_workload(
            **(BASES[kind] | {SETTINGS[axis]: point}),
            device=args.device,
            precision=precision,
            seed=args.seed,
        )
        comparison = compare(
            workload, args.variants, original, rounds=args.rounds, steps=STEPS[kind]
        )
        lines += rows(str(point), comparison)
        absent |= {f"{name} at {point}": why for name, why in comparison.absent.items()}
        results.append({"axis": axis, "point": point} | asdict(comparison))
    print(f"\n{axis}, otherwise {', '.join(map(str, BASES[kind].values()))}, {precision}")
    if lines:
        print(table(TITLES, lines))
    for name, reason in absent.items():
        print(f"not in it: {name}: {reason}")
    return results


def rows(point: str, comparison: Comparison) -> list[list[str]]:
    """Writes a line per variant at one point; ratios are to the first of them."""
    variants = comparison.variants
    if not variants:
        return []
    speed_ups = ratios(
        {name: facts.seconds for name, facts in variants.items()}, next(iter(variants))
    )
    lines = []
    for name, facts in variants.items():
        step = spread(facts.seconds)
        lines.append(
            [
                point,
                name,
                f"{1e3 * step.median:.1f}",
                f"{1e3 * step.lowest:.1f} to {1e3 * step.highest:.1f}",
                f"{1e3 * step.median / comparison.batch_size:.2f}",
                f"{speed_ups[name]:.2f}",
                mebibytes(facts.memory_bytes),
            ]
        )
    return lines


def measure(args: argparse.Namespace, original: ModuleType | None) -> list[dict[str, Any]]:
    """Measures every axis in every precision."""
    return [
        result
        for precision in args.precision
        for axis in args.axes
        for result in measure_axis(axis, precision, args, original)
    ]


def main(words: list[str] | None = None) -> None:
    """Prints a table per axis, and with `--json` writes the numbers."""
    parser = make_parser(__doc__)
    parser.set_defaults(variants=("dense", "sparse"), precision=["fp32"])
    parser.add_argument("--axes", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS))
    parser.add_argument(
        "--rounds", type=positive, default=3, help="turns of each, of which the median"
    )
    run(parser, measure, words)


if __name__ == "__main__":
    main()

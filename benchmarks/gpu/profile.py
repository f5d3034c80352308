"""Where the time of a step goes: the operations that take most of it, as text.

python -m benchmarks.gpu.profile --model swin_b --batch-size 128 --variants dense sparse
"""

import argparse
from types import ModuleType
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.step.command import make_parser, positive, run
from benchmarks.step.comparison import BATCH_SIZES
from benchmarks.step.timing import synchronise
from benchmarks.step.variants import Absent, Variant, build
from benchmarks.step.workload import make_workload
from benchmarks.tables import table

STEPS, WARM_UP = 3, 3
MOST_SHOWN = 15
LONGEST_NAME = 70  # characters
TITLES = ("operation", "ms a step", "share", "calls a step")


def costliest(variant: Variant) -> list[dict[str, Any]]:
    """Returns the operations that take most time by themselves, the dearest first.

    Args:
        variant: Its steps are done and profiled, on a GPU by kernels, on a CPU by operators.
    """
    device = variant.images.device
    mask = variant.prepare(variant.workload.mask(0))
    for _ in range(WARM_UP):
        variant.step(mask)
    synchronise(device)
    is_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(STEPS):
            variant.step(mask)
        synchronise(device)
    name = "self_device_time_total" if is_gpu else "self_cpu_time_total"
    found = [
        {"name": event.key, "us": getattr(event, name) / STEPS, "calls": event.count / STEPS}
        for event in profiler.key_averages()
    ]
    return sorted((each for each in found if each["us"] > 0), key=lambda each: -each["us"])


def rows(found: list[dict[str, Any]]) -> list[list[str]]:
    """Writes a line for each of the dearest operations, and one for all others."""
    whole = sum(each["us"] for each in found)
    shown, rest = found[:MOST_SHOWN], found[MOST_SHOWN:]
    if rest:
        others = {"name": f"{len(rest)} others", "us": sum(each["us"] for each in rest)}
        shown = [*shown, others | {"calls": sum(each["calls"] for each in rest)}]
    return [
        [
            each["name"][:LONGEST_NAME].replace("|", "/"),
            f"{each['us'] / 1e3:.2f}",
            f"{each['us'] / whole:.1%}",
            f"{each['calls']:.0f}",
        ]
        for each in shown
    ]


def measure(args: argparse.Namespace, original: ModuleType | None) -> list[dict[str, Any]]:
    """Profiles every variant in every precision; prints as it goes."""
    results = []
    for precision in args.precision:
        for name in args.variants:
            workload = make_workload(
                args.model,
                batch_size=args.batch_size or BATCH_SIZES[args.device.type],
                device=args.device,
                precision=precision,
                seed=args.seed,
            )
            variant = build(name, workload, original)
            print(f"\n{args.model}, {name}, {len(workload.images)} images, {precision}")
            if isinstance(variant, Absent):
                print(f"not in it: {variant.reason}")
                continue
            variant.model.train()
            found = costliest(variant)
            print(table(TITLES, rows(found)), flush=True)
            results.append({"variant": name, "precision": precision, "operations": found})
    return results


def main(words: list[str] | None = None) -> None:
    """Prints a table per variant and precision, and with `--json` writes the numbers."""
    parser = make_parser(__doc__)
    parser.set_defaults(precision=["bf16"])
    parser.add_argument("--model", default="swin_nano", help="a Swin of conf/model")
    parser.add_argument("--batch-size", type=positive, help="default: 8 on a CPU, 128 on a GPU")
    run(parser, measure, words)


if __name__ == "__main__":
    main()

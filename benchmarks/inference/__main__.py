"""How fast a network answers: eager, compiled, and by other runtimes, in turn, in one process.

python -m benchmarks.inference --model swin_t --img-size-px 224
python -m benchmarks.inference --classifier runs/finetune/NAME --images photos/

Every variant takes the same raw pixels (uint8) and gives the scores of all classes, on the CPU, on
--threads threads. Files are those of `ssl-swin export`; int8 is ONNX Runtime's dynamic
quantisation of weights to QInt8; bf16 is autocast, as `ssl-swin predict --precision bfloat16`, and
OpenVINO's precision hint. A ratio is that of the eager network's time and the variant's in the same
round: the median over the rounds, and from the lowest to the highest. CPU time is of all threads,
and holds where other work shares the machine. With --images beside them: how many labelled images
each variant answers rightly, which says what its rounding costs. What compiles for minutes is left
out unless it is named, and every variant that is not in the table is named with its reason.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.inference.measuring import Comparison, accuracies, compare
from benchmarks.inference.subject import Subject, drawn_subject, trained_subject
from benchmarks.inference.variants import REFERENCE, WAYS, Run, prepared
from benchmarks.step.command import positive
from benchmarks.step.timing import Spread, spread
from benchmarks.tables import describe_machine, header, table, write_json
from ssl_swin.errors import UserError

TITLES = (
    *("variant", "CPU ms an image", "x eager, CPU", "from to", "x eager, wall", "from to"),
    *("largest difference", "first call s"),
)
ACCURACY = "top-1 %"


def ratio(reference: list[float], own: list[float]) -> Spread:
    """Return how many times as fast as the reference a variant is, round by round."""
    return spread([theirs / ours for theirs, ours in zip(reference, own, strict=True)])


def rows(comparison: Comparison, right: Mapping[str, float]) -> list[list[str]]:
    """Write a line per variant."""
    reference = comparison.variants[REFERENCE]
    lines = []
    for name, facts in comparison.variants.items():
        cpu, wall = (
            ratio(getattr(reference, kind), getattr(facts, kind)) for kind in ("cpu_s", "wall_s")
        )
        line = [
            name,
            f"{1e3 * spread(facts.cpu_s).median / comparison.batch_size:.1f}",
            *(text for each in (cpu, wall) for text in _told(each)),
            f"{facts.difference:.1e}",
            f"{facts.first_s:.1f}",
        ]
        lines.append(line + ([f"{100 * right[name]:.1f}"] if right else []))
    return lines


def measure(args: argparse.Namespace, subject: Subject, folder: Path) -> dict[str, Any]:
    """Prepare the variants, measure, and print the tables."""
    runs: dict[str, Run] = {}
    absent = {}
    for name, way in WAYS.items():
        asked = name in args.variants if args.variants else not way.is_slow
        if not asked and name != REFERENCE:
            why = "compiles for minutes" if way.is_slow else "not asked for"
            absent[name] = f"{why}; --variants {name!r} takes it in"
            continue
        made = prepared(name, subject, folder, args.threads)
        if isinstance(made, str):
            absent[name] = made
        else:
            runs[name] = made
    right = accuracies(subject, runs)
    comparisons = []
    for batch_size in args.batch_size:
        comparison = compare(subject, runs, batch_size, args.rounds)
        comparisons.append(comparison)
        print(f"\n{_of(subject)}, batch {batch_size}, {args.rounds} rounds\n")
        print(table((*TITLES, *([ACCURACY] if right else [])), rows(comparison, right)))
        print(f"\ndifferences: of scores up to {comparison.largest_score:.2g}")
    for name, reason in absent.items():
        print(f"not in it: {name}: {reason}")
    return {"batches": [*map(asdict, comparisons)], "top1": right, "absent": absent}


def main(words: list[str] | None = None) -> None:
    """Print a table per batch size, and with `--json` write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", default="swin_nano", help="a Swin of conf/model")
    what.add_argument("--classifier", help="a fine-tuned run instead, or what backbone= takes")
    parser.add_argument("--img-size-px", type=positive, help="for --model; default: its own")
    parser.add_argument("--images", help="labelled, for --classifier: what ssl-swin predict takes")
    parser.add_argument("--num-images", type=positive, default=500, help="most of them")
    parser.add_argument("--variants", nargs="+", choices=WAYS, metavar="NAME", help=", ".join(WAYS))
    parser.add_argument("--batch-size", type=positive, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=positive, default=7, help="turns of each variant")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    args = parser.parse_args(words)
    if args.images and not args.classifier:
        parser.error("--images is for --classifier: random weights are never right")
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            machine = describe_machine(torch.device("cpu"))
            print(header(machine))
            subject = (
                trained_subject(args.classifier, args.images, num_images=args.num_images)
                if args.classifier
                else drawn_subject(args.model, folder / "network", img_size_px=args.img_size_px)
            )
            asked = {key: str(value) for key, value in vars(args).items()}
            results = measure(args, subject, folder)
            write_json(args.json, {"machine": machine, "asked": asked, "results": results})
    except UserError as error:
        parser.exit(2, f"{error}\n")
    finally:
        torch.set_num_threads(before)


def _told(each: Spread) -> tuple[str, str]:
    return f"{each.median:.2f}", f"{each.lowest:.2f} to {each.highest:.2f}"


def _of(subject: Subject) -> str:
    size = " x ".join(map(str, subject.network.img_size_px))
    labelled = subject.labelled
    images = "noise" if labelled is None else f"{len(labelled.pixels)} labelled images"
    return f"{subject.name}, {size} px, {images}"


if __name__ == "__main__":
    main()

"""Losses of the same weights and batch in every precision, as written and compiled.

python -m benchmarks.gpu.losses --models swin_t swin_b --batch-size 32

Each is compared with float32 of the same objective, not compiled. In half precision they may differ
by a hundredth, compiled in float32 by a hundred-thousandth. What does not fit is left out, by name.
"""

import argparse
import gc
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException

from benchmarks.step.command import make_parser, positive, run
from benchmarks.step.variants import Absent, build
from benchmarks.step.workload import make_workload
from benchmarks.tables import table

EXACT = "fp32"
TOO_FAR = 1  # exit code
MOST_APART = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 1e-2}  # relative
TITLES = ("variant", "precision", "loss", "difference", "at most", "")


def loss(variant: str, **workload: Any) -> float | str:
    """Returns the loss of a variant's first step, or why there is none.

    Args:
        variant: One of `variants.NAMES`.
        workload: See `workload.make_workload`.
    """
    try:
        built_for = make_workload(**workload)
        built = build(variant, built_for, None)
        if isinstance(built, Absent):
            return built.reason
        built.model.train(built_for.drop_path_rate == 0)
        return built.loss(built.prepare(built_for.mask(0))).item()
    except torch.OutOfMemoryError:
        return f"out of memory with {workload['batch_size']} images"
    except TorchDynamoException as error:
        return f"does not compile: {' '.join(str(error).split())[:200]}"


def cells(
    variants: Sequence[str], precisions: Sequence[str], **workload: Any
) -> list[dict[str, Any]]:
    """Returns the loss of every variant in every precision, beside that of its reference.

    Args:
        variants: The first of them is what the others are compared with, in float32.
        precisions: Of `MOST_APART`.
        workload: See `workload.make_workload`.
    """
    found = []
    for variant in variants:
        for precision in precisions:
            value = loss(variant, precision=precision, **workload)
            found.append({"variant": variant, "precision": precision, "loss": value})
            release()
    exact = found[0]["loss"]
    for cell in found:
        values = (cell["loss"], exact)
        if all(isinstance(value, float) for value in values):
            cell["difference"] = abs(cell["loss"] / exact - 1)
            cell["is_near"] = cell["difference"] <= MOST_APART[cell["precision"]]
    return found


def release() -> None:
    """Frees the memory of models that are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def rows(found: list[dict[str, Any]]) -> list[list[str]]:
    """Writes a line per loss; those that are too far off are marked."""
    lines = []
    for cell in found:
        start = [cell["variant"], cell["precision"]]
        if "difference" not in cell:
            lines.append([*start, str(cell["loss"]), "-", "-", ""])
            continue
        limit = MOST_APART[cell["precision"]]
        mark = "" if cell["is_near"] else "TOO FAR"
        lines.append(
            [*start, f"{cell['loss']:.6f}", f"{cell['difference']:.1e}", f"{limit:.0e}", mark]
        )
    return lines


def measure(args: argparse.Namespace, _: ModuleType | None) -> list[dict[str, Any]]:
    """Compares the losses of every model; prints as it goes."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    results = []
    for model in args.models:
        for objective in ("dense", "sparse"):
            found = cells(
                (objective, f"{objective}_compiled"),
                list(MOST_APART),
                model=model,
                batch_size=args.batch_size,
                device=args.device,
                seed=args.seed,
            )
            print(f"\n{model}, {args.batch_size} images, {objective}")
            print(table(TITLES, rows(found)), flush=True)
            results.append({"model": model, "objective": objective, "losses": found})
    torch.set_float32_matmul_precision(precision)
    return results


def main(words: list[str] | None = None) -> None:
    """Prints a table per model and objective, and with `--json` writes the numbers.

    Ends with 1 if a loss is too far off.
    """
    parser = make_parser(__doc__, has_variants=False)
    parser.add_argument("--models", nargs="+", default=["swin_nano"], help="Swins of conf/model")
    parser.add_argument("--batch-size", type=positive, default=8, help="default: 8")
    results = run(parser, measure, words)
    if any(not cell.get("is_near", True) for each in results for cell in each["losses"]):
        parser.exit(TOO_FAR, "a loss is too far off\n")


if __name__ == "__main__":
    main()

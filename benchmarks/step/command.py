"""The command line that the benchmarks of the training step share."""

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.step.checkout import import_simmim
from benchmarks.step.variants import NAMES
from benchmarks.step.workload import PRECISIONS, pick_device
from benchmarks.tables import describe_machine, header, write_json
from ssl_swin.errors import UserError


def make_parser(description: str | None, *, has_variants: bool = True) -> argparse.ArgumentParser:
    """Makes a parser with the options that all have, or all that compare variants."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if has_variants:
        parser.add_argument("--reference", type=Path, help="a checkout of microsoft/SimMIM")
        parser.add_argument("--variants", nargs="+", choices=NAMES, default=NAMES, metavar="NAME")
    else:
        parser.set_defaults(reference=None)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["fp32", "bf16"])
    parser.add_argument("--device", default="auto", help="auto is a GPU if there is one")
    parser.add_argument("--seed", type=int, default=0, help="of weights, images and masks")
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    return parser


def run(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace, ModuleType | None], list[dict[str, Any]]],
    words: list[str] | None,
) -> list[dict[str, Any]]:
    """Parses, says on what machine, measures, and writes the raw numbers; returns them too.

    Args:
        parser: Of the command.
        measure: Prints tables as it goes, and gives what they were made of.
        words: Of the command line; None for the process's own.
    """
    args = parser.parse_args(words)
    try:
        args.device = pick_device(args.device)
        original = None if args.reference is None else import_simmim(args.reference)
        machine = describe_machine(args.device)
        print(header(machine))
        asked = {name: _plain(value) for name, value in vars(args).items()}
        results = measure(args, original)
        write_json(args.json, {"machine": machine, "asked": asked, "results": results})
        return results
    except UserError as error:
        parser.exit(2, f"{error}\n")


def positive(text: str) -> int:
    """Reads a whole number of at least 1, as an argument's type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)

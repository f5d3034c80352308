"""Write what was fastest on a card into the table that `kernels=auto` reads.

python -m benchmarks.gpu.kernels gpu_results

The folder is that of `benchmarks.gpu`, whose part `choices` has timed each kernel in whole steps,
dense and sparse, and `compile_modes` those that are compiled. Of each the value with the shortest
steps is taken, both objectives counted alike. What the table says of the card is replaced. --show
writes nothing.
"""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gpu.results import FILE
from benchmarks.step.ablations import BASE, CHOSEN, OTHER
from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically
from ssl_swin.launch.kernels import NAMES, TABLE, read_table


def fastest(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fastest value of each kernel; what was not measured, or failed, is not taken.

    Args:
        measured: Results of `benchmarks.step.ablations`.
    """
    values: dict[str, Any] = {}
    for name in NAMES:
        gains: dict[Any, list[float]] = {getattr(BASE, name): [0.0]}  # of time, as logarithms
        for each in measured:
            if each["kernel"] == name and "error" not in each:
                gain = math.log(_median(each, CHOSEN) / _median(each, OTHER))
                gains.setdefault(each["values"][OTHER], []).append(gain)
        values[name] = max(gains, key=lambda value, of=gains: statistics.mean(of[value]))  # type: ignore[misc]
    return values


def with_card(
    table: Sequence[Mapping[str, Any]], card: str, values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the table with an entry for a card at its top, in place of an earlier one."""
    others = [dict(entry) for entry in table if entry["device"] != card]
    return [{"device": card, **values}, *others]


def read_choices(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the device of results and what was measured of single choices.

    Raises:
        UserError: If that is not in them, or they are a rehearsal's.
    """
    try:
        results = json.loads((folder / FILE).read_text())
        machine = results["machine"]
        parts = results["parts"]
        measured = parts["choices"]["numbers"]["results"]
        modes = parts.get("compile_modes", {}).get("numbers") or {}  # of what may be left
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / FILE} has no single choices: run python -m benchmarks.gpu --out {folder} "
            "--parts choices"
        ) from error
    if machine["rehearsal"]:
        raise UserError(f"{folder / FILE} is a rehearsal's, at toy sizes: it decides nothing")
    return machine["gpu"], [*measured, *modes.get("results", ())]


def _median(measured: Mapping[str, Any], turn: str) -> float:
    return statistics.median(measured["seconds"][turn])


def main(words: Sequence[str] | None = None) -> None:
    """Writes the entry of a card, or shows it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder of benchmarks.gpu")
    parser.add_argument("--show", action="store_true", help="print the entry alone")
    args = parser.parse_args(words)
    try:
        card, measured = read_choices(args.results)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    values = fastest(measured)
    print(yaml.safe_dump([{"device": card, **values}], sort_keys=False), end="")
    if not args.show:
        comments = [line for line in TABLE.read_text().splitlines() if line.startswith("#")]
        entries = yaml.safe_dump(with_card(read_table(), card, values), sort_keys=False)
        write_atomically(TABLE, "\n".join([*comments, entries]))
        print(f"written to {TABLE}")


if __name__ == "__main__":
    main()

"""What grows with the length of a run: its files, its memory, its open files.

python -m benchmarks.long_run                        # a million steps, not trained; minutes
python -m benchmarks.long_run --real-steps 5000      # and steps that are: memory and open files

The files of a run are written and read by the package's own classes, each act in a process of its
own, from which the peak of its memory is read.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.long_run.processes import Use, slope, watch
from benchmarks.long_run.simulated import ACTS, Done, measure
from benchmarks.step.command import positive
from benchmarks.tables import describe_machine, header, table, write_json

WARM_UP = 0.2  # share of a run that is left out of its trend: everything is loaded and cached then


def files_table(found: Mapping[str, Done]) -> str:
    """Write what the acts took."""
    titles = ["", "s", "MB on disk", "peak MiB", "of which grown"]
    rows = [
        [
            name,
            f"{done.seconds:.2f}",
            f"{done.size_bytes / 1e6:,.2f}",
            f"{done.peak_mib:,.0f}",
            f"{done.grown_mib:,.0f}",
        ]
        for name, done in found.items()
    ]
    return table(titles, rows)


def processes_table(seen: Mapping[str, Sequence[Use]]) -> str:
    """Write what processes used at the end, and by how much that grew in 1,000 steps."""
    titles = ["processes", "RSS, MiB", "a 1,000 steps", "PSS, MiB", "a 1,000 steps"]
    titles += ["open files", "a 1,000 steps"]
    rows = []
    for kind, uses in seen.items():
        cells = [kind]
        for name, digits in (("rss_mib", 1), ("pss_mib", 1), ("num_files", 0)):
            cells.append(f"{getattr(uses[-1], name):.{digits}f}")
            cells.append(f"{slope(uses, name, WARM_UP):+.2f}")
        rows.append(cells)
    return table(titles, rows)


def main(words: Sequence[str] | None = None) -> None:
    """Print the tables, and with `--json` write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=positive, default=1_000_000, help="not trained")
    parser.add_argument("--every", type=positive, nargs="+", default=[10, 1], help="steps a row")
    parser.add_argument("--acts", nargs="+", choices=[*ACTS], default=[*ACTS], metavar="ACT")
    parser.add_argument("--real-steps", type=positive, help="trained; none without it")
    parser.add_argument("--interval-s", type=float, default=5, help="from look to look")
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    args = parser.parse_args(words)
    machine = describe_machine(torch.device("cpu"))
    print(header(machine), flush=True)
    results: dict[str, Any] = {"machine": machine, "files": {}}
    for every in args.every:
        found = measure(args.steps, every, args.acts)
        print(f"\n{args.steps:,} steps, a row every {every}\n\n{files_table(found)}", flush=True)
        results["files"][every] = {name: done._asdict() for name, done in found.items()}
    if args.real_steps:
        with tempfile.TemporaryDirectory() as folder:
            seen = watch(Path(folder), args.real_steps, args.interval_s)
        print(f"\n{args.real_steps:,} steps, trained\n\n{processes_table(seen)}")
        results["processes"] = {
            kind: [use._asdict() for use in uses] for kind, uses in seen.items()
        }
    write_json(args.json, results)


if __name__ == "__main__":
    main()

"""Objectives on the same images in equal time, each judged by a linear probe.

python -m benchmarks.gpu.training --model swin_t --minutes-each 5 --data SHARDS --out runs_of_it

Words after -- are settings of pretrain.py. Without --data, images are drawn. A pretraining is
stopped by `trainer.max_time`, which counts its start too, and the probe takes what it has learnt.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import describe_machine, header, table, write_json

ROOT = Path(__file__).parents[2]
OBJECTIVES = ("simmim", "simmim_sparse")
DATA = "data."  # what settings begin with that a probe has too
STOPPED_BY_TIME = 75  # exit code of a run that `trainer.max_time` ended
TITLES = ("objective", "steps", "images/s", "loss", "linear, val", "kNN, val")


class FailedRunError(Exception):
    """A job ended by an error; the message says which, and what it printed last."""


def job(name: str, folder: Path, overrides: Sequence[str], *, ends: Sequence[int] = (0,)) -> None:
    """Runs one of the project's scripts in a folder.

    Args:
        name: Of the script, as "pretrain".
        folder: Where `runs/` comes to lie.
        overrides: Its settings.
        ends: Exit codes that are as they should be.

    Raises:
        FailedRunError: If it ends otherwise.
    """
    command = [sys.executable, str(ROOT / f"{name}.py"), *overrides]
    ended = subprocess.run(
        command,
        cwd=folder,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ended.returncode not in ends:
        raise FailedRunError(f"{name}.py ended with {ended.returncode}:\n{ended.stdout[-2000:]}")


def learnt(run: Path) -> dict[str, float]:
    """Returns how far a pretraining has come: steps, images per second, and the last loss.

    Raises:
        FailedRunError: If it has logged nothing.
    """
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    logged = [row for row in rows if row.get("train/loss")]
    if not logged:
        raise FailedRunError(f"{run} has no loss in metrics.csv: give it more minutes")
    return {
        "steps": float(logged[-1]["step"]),
        "images_per_s": statistics.median(float(row["perf/samples_per_s"]) for row in logged),
        "loss": float(logged[-1]["train/loss"]),
    }


def judged(run: Path) -> dict[str, float]:
    """Returns what a linear probe says, on the validation split, in percent."""
    results = json.loads((run / "results.json").read_text())
    return {method: results[method]["top1_percent"]["val"] for method in ("linear", "knn")}


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Trains and judges every objective; prints a line each as it goes."""
    source = ["data=demo"] if args.data is None else ["data=shards", f"data.root={args.data}"]
    shared = [f"model={args.model}", *source, "logger=csv", "trainer.log_every_n_steps=1"]
    limit = f"trainer.max_time={{seconds: {round(60 * args.minutes_each)}}}"
    results = []
    for objective in args.objectives:
        name = f"{args.model}_{objective}"
        settings = [f"objective={objective}", *shared, f"name={name}", *args.settings]
        job("pretrain", args.out, [*settings, limit, "resume=never"], ends=(0, STOPPED_BY_TIME))
        run = args.out / "runs/pretrain" / name
        found: dict[str, Any] = {"objective": objective, **learnt(run)}
        print(f"{objective}: {found['steps']:.0f} steps, loss {found['loss']:.4f}", flush=True)
        probe = [f"backbone=runs/pretrain/{name}", *source, f"name={name}", "logger=csv"]
        of_data = [word for word in args.settings if word.startswith(DATA)]
        job("linear_probe", args.out, [*probe, *of_data])
        found |= judged(args.out / "runs/linear_probe" / name)
        results.append(found)
    return results


def rows(results: list[dict[str, Any]]) -> list[list[str]]:
    """Writes a line per objective."""
    return [
        [
            each["objective"],
            f"{each['steps']:.0f}",
            f"{each['images_per_s']:.0f}",
            f"{each['loss']:.4f}",
            *(f"{each[method]:.1f}" for method in ("linear", "knn")),
        ]
        for each in results
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Prints a table of the objectives, and with `--json` writes the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="swin_nano", help="a model of conf/model")
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, help="of conf/objective")
    parser.add_argument("--minutes-each", type=float, default=5, help="of each pretraining")
    parser.add_argument("--data", type=Path, help="folder of shards with labels")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    parser.add_argument("settings", nargs="*", help="of pretrain.py, after --")
    args = parser.parse_args(words)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.data is not None:
        args.data = args.data.resolve()
    machine = describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    print(header(machine), flush=True)
    try:
        results = compare(args)
    except FailedRunError as error:
        parser.exit(1, f"{error}\n")
    print(table(TITLES, rows(results)))
    write_json(args.json, {"machine": machine, "results": results})


if __name__ == "__main__":
    main()

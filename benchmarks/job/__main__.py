"""What a run takes besides its steps: help, start-up, waiting for data, monitors, checkpoints.

python -m benchmarks.job                                       # the demo
python -m benchmarks.job experiment=NAME data=... --steps 200  # any other, with its own settings

Starts the real scripts. A run is begun with the settings of the whole, ended after `--steps`, and
extrapolated to the whole by the formula that is printed with it.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.job import shares as job_shares
from benchmarks.step.command import positive
from benchmarks.tables import describe_machine, header, table, write_json

ROOT = Path(__file__).parents[2]
HELP = {
    "pretrain.py": [str(ROOT / "pretrain.py")],
    "finetune.py": [str(ROOT / "finetune.py")],
    "linear_probe.py": [str(ROOT / "linear_probe.py")],
    "ssl-swin": ["-c", "from ssl_swin.cli import main; main()"],
}
PHASES = {
    "python": "interpreter",
    "composed": "configuration",
    "imported": "imports",
    "opened": "model, opening the data",
    "built": "trainer, run folder, loggers",
    "looked": "pictures and probe of the untrained model",
    "first batch": "first batch",
    "first step": "first step",
}


def help_s(rounds: int) -> dict[str, float]:
    """Median seconds of `--help` of each command, after one that does not count."""
    found = {}
    for name, command in HELP.items():
        seconds = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, *command, "--help"], check=True, stdout=subprocess.DEVNULL
            )
            seconds.append(time.perf_counter() - start)
        found[name] = statistics.median(seconds[1:])
    return found


def timed_run(folder: Path, stop_at: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Runs the pretraining script under the clocks.

    Args:
        folder: New; `run` and `output.txt` come to lie in it.
        stop_at: Optimiser step to end at.
        overrides: Of the configuration.

    Raises:
        SystemExit: If the run fails, with the end of what it printed.
    """
    folder.mkdir()
    report = folder / "report.json"
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    arguments = [str(stop_at), *overrides, f"run_dir={folder / 'run'}"]
    command = [sys.executable, "-m", "benchmarks.job.profile_run", str(report), str(time.time())]
    with (folder / "output.txt").open("w") as output:
        done = subprocess.run(
            [*command, *arguments], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    if done.returncode:
        sys.exit((folder / "output.txt").read_text()[-2000:])
    read: dict[str, Any] = yaml.safe_load(report.read_text())  # JSON is YAML
    return read


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Takes all measurements."""
    timed_run(work / "warm", 1, args.overrides)  # makes the demo's images, fills the caches
    starts = [
        timed_run(work / f"start{number}", 1, args.overrides)["moments"]
        for number in range(args.rounds)
    ]
    report = timed_run(work / "steps", args.steps, args.overrides)
    run = work / "steps" / "run"
    config = yaml.safe_load((run / "config.yaml").read_text())
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    whole_s, shares = job_shares.shares(report, config)
    batch_s = statistics.median(report["batch_s"])
    return {
        "machine": describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "overrides": args.overrides,
        "help_s": help_s(args.rounds),
        "first_step_s": [moments["first step"] for moments in starts],
        "phases_s": job_shares.phases(starts),
        "num_steps": report["num_steps"],
        "batch_s": batch_s,
        "images_per_s": config["batch_size"] / batch_s,  # of one device
        "data_wait_ratio": job_shares.data_wait_ratio(rows),
        "whole_s": whole_s,
        "shares": [share._asdict() for share in shares],
    }


def print_results(results: dict[str, Any], worker_images_per_s: float, wanted: list[float]) -> None:
    """Prints the tables."""
    print(header(results["machine"]))
    print(f"\npretrain.py {' '.join(results['overrides'])}\n")
    rows = [[name, f"{seconds:.2f}"] for name, seconds in results["help_s"].items()]
    print(table(["--help of", "s"], rows))
    rows = [[PHASES[name], f"{seconds:.2f}"] for name, seconds in results["phases_s"].items()]
    firsts = results["first_step_s"]
    rows.append(
        ["in all", f"{statistics.median(firsts):.2f} ({min(firsts):.2f}-{max(firsts):.2f})"]
    )
    print("\n" + table(["from the command to the first step", "s"], rows))
    print(f"\n{_shares_table(results)}\n\n{job_shares.FORMULA}")
    print(f"\nwaits for data: {results['data_wait_ratio']:.2%} of the time in training steps\n")
    rows = [
        [f"{rate:,.0f}", str(job_shares.num_workers(rate, worker_images_per_s))]
        for rate in (results["images_per_s"], *wanted)
    ]
    print(table(["images/s of a device", f"workers of {worker_images_per_s:,.0f} images/s"], rows))


def _shares_table(results: dict[str, Any]) -> str:
    rows = [
        [
            share["name"],
            str(share["events"]),
            "-" if share["event_s"] is None else f"{1e3 * share['event_s']:.2f}",
            str(share["whole_events"]),
            f"{share['whole_s']:.2f}",
            f"{share['ratio']:.2%}",
        ]
        for share in results["shares"]
    ]
    rows.append(["whole run", "", "", "", f"{results['whole_s']:.1f}", "100.00%"])
    measured = f"times in {results['num_steps']} steps"
    return table(["", measured, "ms each", "times in the run", "s in the run", "share"], rows)


def main() -> None:
    """Prints the tables, and with `--json` writes the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="SETTING=VALUE", help="of pretrain.py")
    parser.add_argument("--rounds", type=positive, default=3, help="of starts and of --help")
    parser.add_argument("--steps", type=positive, default=100, help="more than one epoch is best")
    parser.add_argument(
        "--worker-images-per-s", type=float, default=1208, help="see benchmarks.data.loader"
    )
    parser.add_argument("--wanted", type=float, nargs="*", default=[], help="images/s to load for")
    parser.add_argument("--json", type=Path, help="file for the raw numbers")
    args = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as temporary:
        results = measure(args, Path(temporary))
    print_results(results, args.worker_images_per_s, args.wanted)
    write_json(args.json, results)


if __name__ == "__main__":
    main()

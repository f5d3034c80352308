"""Mean and spread of the last measured accuracy over the runs of a sweep.

python -m benchmarks.features.top1 runs/finetune/A_sweep runs/finetune/B_sweep
"""

import argparse
import csv
import json
import statistics
from pathlib import Path


def last_value(run: Path, metric: str) -> float:
    """Reads the last logged value of a metric, a fraction, in percent."""
    with (run / "metrics.csv").open(newline="") as file:
        values = [row[metric] for row in csv.DictReader(file) if row.get(metric)]
    if not values:
        raise SystemExit(f"{run} has not logged {metric}: is it finished?")
    return 100 * float(values[-1])


def minutes(run: Path) -> float:
    """Reads the wall time of a run."""
    seconds: float = json.loads((run / "provenance.json").read_text())["duration_s"]
    return seconds / 60


def summarise(sweep: Path, metric: str) -> str:
    """Describes a sweep in one line."""
    runs = sorted(path.parent for path in sweep.glob("*/metrics.csv"))
    values = [last_value(run, metric) for run in runs]
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    each = " ".join(f"{value:.2f}" for value in values)
    wall = statistics.mean(map(minutes, runs))
    return f"{sweep.name}: {statistics.mean(values):.2f} +- {spread:.2f} ({each}), {wall:.1f} min"


def main() -> None:
    """Prints one line per sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweeps", nargs="+", type=Path)
    parser.add_argument("--metric", default="test/top1")
    arguments = parser.parse_args()
    for sweep in arguments.sweeps:
        print(summarise(sweep, arguments.metric))


if __name__ == "__main__":
    main()

"""What pretraining brings to a dense task: one fine-tuning from several backbones, one table.

python -m benchmarks.dense benchmarks/dense/nuclei.yaml --data FOLDER --out study --seeds 0 1 2

The file names the job, what all of its runs share, the metric, backbones, each a job and its
settings or none for random weights, and numbers of images with labels. Backbones see the same
images without their labels; one that is trained on drawn images says so in its settings. Each
backbone and seed is trained once and fine-tuned with every number of labels. What is in the table
is not run again. {data} in the file stands for the folder.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies import ROOT, check_known, read_study, run_logged
from benchmarks.tables import table
from ssl_swin.errors import UserError

KEYS = ("job", "metric", "images", "shared", "backbones")
COLUMNS = ("backbone", "seed", "images", "score", "pretraining_s", "training_s")


def run_folder(out: Path, job: str, backbone: str, seed: int, number: object) -> Path:
    """Return the folder of a fine-tuning; its last part is the run's name."""
    return out / "runs" / job / f"{backbone}_{seed}_{number}"


class Study:
    """Backbones that are compared, and the table of what came of them."""

    def __init__(self, settings: Mapping[str, Any], data: Path, out: Path) -> None:
        """Set a study up.

        Args:
            settings: The file.
            data: Folder with images and what belongs to them.
            out: Folder for runs and table.
        """
        self.settings, self.data, self.out = settings, data.resolve(), out
        self.table = out / "table.csv"

    def run(self, backbone: str, seed: int) -> None:
        """Train a backbone, and fine-tune it with every number of labels that is not done."""
        done = {(row["backbone"], row["seed"], row["images"]) for row in self.rows()}
        numbers = [
            number
            for number in self.settings["images"]
            if (backbone, str(seed), str(number)) not in done
        ]
        if not numbers:
            return
        given, pretraining_s = self.pretrained(backbone, seed)
        for number in numbers:
            run = run_folder(self.out, self.settings["job"], backbone, seed, number)
            labels = [] if number == "all" else [f"labels.number={number}"]
            words = [*self.settings["shared"], *given, *labels, f"seed={seed}", f"name={run.name}"]
            training_s = self.call(self.settings["job"], words)
            score = self.score(run)
            self.add((backbone, seed, number, score, round(pretraining_s), round(training_s)))

    def pretrained(self, backbone: str, seed: int) -> tuple[list[str], float]:
        """Return the settings that give a backbone, and the seconds that it took."""
        source = self.settings["backbones"][backbone]
        if "job" not in source:
            return list(source["settings"]), 0.0
        name = f"{backbone}_{seed}"
        words = [*source["settings"], "logger=csv", f"seed={seed}", f"name={name}"]
        seconds = self.call(source["job"], words)
        return [f"backbone=runs/{source['job']}/{name}"], seconds

    def call(self, job: str, words: Sequence[str]) -> float:
        """Run a job in the study's folder on one thread; return its seconds.

        Raises:
            UserError: If it fails.
        """
        start = time.monotonic()
        given = [word.replace("{data}", str(self.data)) for word in words]
        run_logged([str(ROOT / f"{job}.py"), *given], self.out, self.out / "log.txt")
        return time.monotonic() - start

    def score(self, run: Path) -> float:
        """Return the metric of a run's best epoch."""
        with (run / "metrics.csv").open(newline="") as file:
            values = [row.get(self.settings["metric"]) for row in csv.DictReader(file)]
        return float([value for value in values if value][-1])  # type: ignore[arg-type]

    def rows(self) -> list[dict[str, str]]:
        """Return the table so far."""
        if not self.table.is_file():
            return []
        with self.table.open(newline="") as file:
            return list(csv.DictReader(file))

    def add(self, row: Sequence[object]) -> None:
        """Write a row to the table."""
        is_new = not self.table.is_file()
        with self.table.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(COLUMNS)
            writer.writerow(row)


def summary(rows: Sequence[Mapping[str, str]], metric: str) -> str:
    """Return a Markdown table: the metric in percent, its mean over seeds and their spread.

    Args:
        rows: Of the table, as `Study.rows` gives them.
        metric: Its name.
    """

    def cell(values: Sequence[float]) -> str:
        if not values:
            return "-"
        spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.1f}{spread}"

    numbers = list(dict.fromkeys(row["images"] for row in rows))
    lines = []
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        own = [row for row in rows if row["backbone"] == backbone]
        by_number = [
            [100 * float(row["score"]) for row in own if row["images"] == number]
            for number in numbers
        ]
        seconds = statistics.mean(float(row["pretraining_s"]) for row in own)
        seeds = len({row["seed"] for row in own})
        lines.append([backbone, str(seeds), *map(cell, by_number), f"{seconds:.0f}"])
    titles = [f"{metric}, {number} images" for number in numbers]
    return table(["backbone", "seeds", *titles, "pretraining, s"], lines)


def main(words: Sequence[str] | None = None) -> None:
    """Run what is not in the table yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder that {data} stands for")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and table.csv")
    parser.add_argument("--backbones", nargs="*", help="only these")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    args = parser.parse_args(words)
    try:
        study = Study(read_study(args.settings, KEYS), args.data, args.out)
        known = study.settings["backbones"]
        check_known(args.backbones or (), [*known], "backbone")
        args.out.mkdir(parents=True, exist_ok=True)
        for seed in args.seeds:
            for backbone in args.backbones or known:
                study.run(backbone, seed)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    print(summary(study.rows(), study.settings["metric"]))


if __name__ == "__main__":
    main()

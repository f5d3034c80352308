"""Which settings give the best features in equal time: pretrain each, probe each, one table.

python -m benchmarks.features.study benchmarks/features/clothing.yaml --data SHARDS --out study

The file names arms, each a few settings of `pretrain.py`, what all of them share, and controls of
random weights, each the settings of a model. An arm gets as many whole epochs as fit into the
budget, by the processor time of its steps: that of `step_cpu_s` in the file, or one that is
measured first. What was used is in the table. Use an idle machine, one arm a core: on a virtual
one, processor time too grows with other work. A file that says `epochs` has no budget: all arms get
as many. An arm and seed that is in the table is not run again. The probe is that of
`linear_probe.py`; what is printed at the end is the mean over seeds, and their standard deviation.
"""

import argparse
import csv
import json
import resource
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies import ROOT, check_known, read_study, run_logged
from benchmarks.tables import table
from ssl_swin.errors import UserError

SHORT, LONG = 8, 32  # steps of the two runs whose difference is the time of a step
COLUMNS = (
    *("arm", "seed", "epochs", "train_cpu_s"),
    *("linear_val", "linear_test", "linear_test_se", "knn_val", "knn_test", "knn_test_se"),
    *("linear_chosen", "knn_chosen"),
)
SHOWN = ("linear_val", "linear_test", "knn_val", "knn_test")


def cpu_s(command: Sequence[str], folder: Path, log: Path) -> float:
    """Run a command of one thread, and return the processor time of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run_logged(command, folder, log)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Study:
    """Arms that are compared, and the table of what came of them."""

    def __init__(self, settings: Mapping[str, Any], data: Path, out: Path) -> None:
        """Set a study up.

        Args:
            settings: The file.
            data: Folder of shards.
            out: Folder for runs and table.
        """
        self.settings, self.out = settings, out
        self.data = ["data=shards", f"data.root={data.resolve()}", "logger=csv"]
        self.table = out / "table.csv"
        self.step_cpu_s: dict[str, float] = dict(settings.get("step_cpu_s") or {})

    def run(self, arm: str, seed: int) -> dict[str, object]:
        """Pretrain an arm and probe it."""
        name = f"{arm}_{seed}"
        epochs, used = 0, 0.0
        if arm in self.settings["random"]:
            probed = ["backbone=none", *self.settings["random"][arm]]
        else:
            epochs = self.epochs(arm)
            command = [*self.pretraining(arm), f"name={name}", f"seed={seed}"]
            used = self.call("pretrain", *command, f"trainer.max_epochs={epochs}")
            probed = [f"backbone=runs/pretrain/{name}"]
        self.call("linear_probe", *probed, *self.data, f"seed={seed}", f"name={name}")
        results = json.loads((self.out / f"runs/linear_probe/{name}/results.json").read_text())
        row: dict[str, object] = {"arm": arm, "seed": seed, "epochs": epochs}
        row["train_cpu_s"] = round(used)
        for method in ("linear", "knn"):
            found = results[method]
            for split, percent in found["top1_percent"].items():
                row[f"{method}_{split}"] = round(percent, 2)
            row[f"{method}_test_se"] = round(found["standard_error_percent"]["test"], 2)
            chosen = found["chosen_on_val"].items()
            row[f"{method}_chosen"] = " ".join(f"{key} {value}" for key, value in chosen)
        return row

    def epochs(self, arm: str) -> int:
        """Return how many whole epochs of an arm fit into the budget, or what the file says."""
        if "epochs" in self.settings:
            return int(self.settings["epochs"])
        if arm not in self.step_cpu_s:
            used = [
                self.call(
                    "pretrain",
                    *self.pretraining(arm),
                    f"name={arm}_of_{steps}",
                    f"trainer.limit_train_batches={steps}",
                    "trainer.max_epochs=1",
                    "schedule.warmup_epochs=0",
                )
                for steps in (SHORT, LONG)
            ]
            self.step_cpu_s[arm] = (used[1] - used[0]) / (LONG - SHORT)
        per_epoch = self.step_cpu_s[arm] * self.settings["steps_per_epoch"]
        return max(1, round(self.settings["budget_cpu_s"] / per_epoch))

    def pretraining(self, arm: str) -> list[str]:
        """Return the settings of an arm's runs."""
        return [*self.settings["shared"], *self.settings["arms"][arm], *self.data]

    def call(self, job: str, *overrides: str) -> float:
        """Run a job in the study's folder; return its processor time."""
        return cpu_s([str(ROOT / f"{job}.py"), *overrides], self.out, self.out / "log.txt")

    def rows(self) -> list[dict[str, str]]:
        """Return the table so far."""
        if not self.table.is_file():
            return []
        with self.table.open(newline="") as file:
            return list(csv.DictReader(file))

    def add(self, row: Mapping[str, object]) -> None:
        """Write a row to the table."""
        is_new = not self.table.is_file()
        with self.table.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if is_new:
                writer.writeheader()
            writer.writerow(row)


def summary(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table: of each arm the mean over its seeds, and their spread.

    Args:
        rows: Of the table, as `Study.rows` gives them.
    """

    def cell(values: Sequence[float]) -> str:
        spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.1f}{spread}"

    by_arm: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    lines = [
        [arm, str(len(runs)), runs[0]["epochs"]]
        + [cell([float(run[column]) for run in runs]) for column in SHOWN]
        for arm, runs in by_arm.items()
    ]
    return table(["arm", "seeds", "epochs", *(name.replace("_", ", ") for name in SHOWN)], lines)


def main(words: Sequence[str] | None = None) -> None:
    """Run what is not in the table yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and table.csv")
    parser.add_argument("--arms", nargs="*", help="only these")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    args = parser.parse_args(words)
    try:
        study = Study(read_study(args.settings, ("random", "arms")), args.data, args.out)
        known = [*study.settings["random"], *study.settings["arms"]]
        check_known(args.arms or (), known, "arm")
        args.out.mkdir(parents=True, exist_ok=True)
        for seed in args.seeds:
            for arm in args.arms or known:
                done = {(row["arm"], row["seed"]) for row in study.rows()}
                if (arm, str(seed)) not in done:
                    study.add(study.run(arm, seed))
    except UserError as error:
        parser.exit(2, f"{error}\n")
    print(summary(study.rows()))


if __name__ == "__main__":
    main()

"""The study of features: what it gives each arm, and what it writes down."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate

from benchmarks.features import study as module
from benchmarks.features.study import LONG, ROOT, SHORT, Study, main, summary
from ssl_swin.launch.resolvers import register_resolvers

STUDIES = {
    name: yaml.safe_load((ROOT / f"benchmarks/features/{name}.yaml").read_text())
    for name in ("clothing", "ladder")
}
SIDES_PX = {"clothing": 96, "ladder": 32}

SETTINGS = {
    "budget_cpu_s": 120,
    "steps_per_epoch": 10,
    "random": {"random": ["model=tiny"]},
    "shared": ["batch_size=4"],
    "arms": {"quick": ["x=1"], "slow": ["x=2"]},
}
START_S = 7.0  # of any job
STEP_S = {"x=1": 0.5, "x=2": 2.0}


class Jobs:
    """Stands in for the jobs: takes as long as they would, and leaves what they leave."""

    def __init__(self) -> None:
        self.commands: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str], folder: Path, log: Path) -> float:
        self.commands.append(command)
        job, *overrides = command
        told = dict(each.split("=", 1) for each in overrides)
        if job.endswith("linear_probe.py"):
            results = {
                method: {
                    "top1_percent": {"val": 50.0, "test": 40.0},
                    "standard_error_percent": {"val": 2.0, "test": 2.5},
                    "chosen_on_val": {"stage": 2, setting: 5},
                }
                for method, setting in (("linear", "base_lr"), ("knn", "k"))
            }
            path = folder / f"runs/linear_probe/{told['name']}/results.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(results))
            return 1.0
        steps = int(told.get("trainer.limit_train_batches", 10)) * int(told["trainer.max_epochs"])
        return START_S + steps * STEP_S[f"x={told['x']}"]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    jobs = Jobs()
    monkeypatch.setattr(module, "cpu_s", jobs)
    return jobs


@pytest.mark.parametrize(("arm", "epochs", "used"), [("quick", 24, 127), ("slow", 6, 127)])
def test_study__gives_each_arm_the_epochs_of_the_budget(
    jobs: Jobs, tmp_path: Path, arm: str, epochs: int, used: int
) -> None:
    row = Study(SETTINGS, tmp_path / "shards", tmp_path).run(arm, seed=3)
    assert (row["epochs"], row["train_cpu_s"]) == (epochs, used)
    assert row["linear_test"] == 40 and row["knn_val"] == 50 and row["linear_test_se"] == 2.5
    assert row["knn_chosen"] == "stage 2 k 5"
    *measured, training, probe = jobs.commands
    lengths = [SHORT, LONG]
    for command, steps in zip(measured, lengths, strict=True):
        assert f"trainer.limit_train_batches={steps}" in command
    assert {"batch_size=4", "seed=3", f"name={arm}_3"} <= set(training)
    assert f"backbone=runs/pretrain/{arm}_3" in probe and "seed=3" in probe


def test_study__takes_the_time_of_a_step_that_was_measured_apart(
    jobs: Jobs, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "step_cpu_s": {"quick": 2.0}}
    assert Study(settings, tmp_path / "shards", tmp_path).run("quick", seed=3)["epochs"] == 6
    training, _ = jobs.commands
    assert "trainer.max_epochs=6" in training


def test_study__gives_all_arms_the_epochs_that_the_file_says(jobs: Jobs, tmp_path: Path) -> None:
    study = Study({**SETTINGS, "epochs": 7}, tmp_path, tmp_path)
    assert [study.run(arm, seed=0)["epochs"] for arm in ("quick", "slow")] == [7, 7]


def test_study__control_is_not_trained(jobs: Jobs, tmp_path: Path) -> None:
    row = Study(SETTINGS, tmp_path, tmp_path).run("random", seed=0)
    assert (row["epochs"], row["train_cpu_s"]) == (0, 0)
    (probe,) = jobs.commands
    assert {"backbone=none", "model=tiny"} <= set(probe)


def test_main__runs_what_the_table_lacks(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "arms.yaml").write_text(json.dumps(SETTINGS))
    asked = ["study", str(tmp_path / "arms.yaml"), "--data", "x", "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*asked, "--arms", "quick"])
    main()
    number = len(jobs.commands)
    main()
    assert len(jobs.commands) == number
    monkeypatch.setattr("sys.argv", asked)
    main()
    lines = (tmp_path / "out/table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["arm", "quick", "random", "slow"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("| slow ")


def test_summary__is_of_all_seeds() -> None:
    rows = [
        {"arm": "a", "epochs": "3", "linear_val": val, "linear_test": "1", "knn_val": "2",
         "knn_test": "3.04"} for val in ("40", "43")
    ]  # fmt: skip
    head, _, row, single = summary([*rows, rows[0] | {"arm": "b"}]).splitlines()
    assert [cell.strip() for cell in head.split("|")[1:-1]] == [
        *("arm", "seeds", "epochs", "linear, val", "linear, test", "knn, val", "knn, test")
    ]
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells == ["a", "2", "3", "41.5 +- 2.1", "1.0 +- 0.0", "2.0 +- 0.0", "3.0 +- 0.0"]
    assert [cell.strip() for cell in single.split("|")[1:5]] == ["b", "1", "3", "40.0"]


def test_cpu_s__is_that_of_the_command(tmp_path: Path) -> None:
    busy = "import time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass"
    assert 0.3 <= module.cpu_s(["-c", busy], tmp_path, tmp_path / "log") < 3
    idle = module.cpu_s(
        ["-c", "import time; time.sleep(0.5); print(5)"], tmp_path, tmp_path / "log"
    )
    assert idle < 0.3
    assert (tmp_path / "log").read_text() == "5\n"


@pytest.mark.parametrize(
    ("name", "arm"), [(name, arm) for name, study in STUDIES.items() for arm in study["arms"]]
)
def test_files__arm_composes_and_builds(name: str, arm: str) -> None:
    register_resolvers()
    study = STUDIES[name]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        given = [*study["shared"], *study["arms"][arm], "data=shards", "data.root=x"]
        cfg = compose("pretrain", overrides=given, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    encoder = instantiate(cfg.model)
    objective = instantiate(cfg.objective)(encoder)
    assert 0 < sum(each.numel() for each in objective.parameters()) < 4e6
    assert encoder.img_size_px == (SIDES_PX[name], SIDES_PX[name])

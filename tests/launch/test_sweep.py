import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from wandb_files import wandb_history

from ssl_swin.cli import main
from ssl_swin.errors import UserError
from ssl_swin.launch import fitting
from ssl_swin.launch.sweep import SweepFolder, conclude_sweep, naming_option
from ssl_swin.runs.sweep_table import last_value, read_jobs, record_job, write_table

ROOT = Path(__file__).parents[2]
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=16",
    "data.prepare.num_val=8",
    "batch_size=8",
    "num_workers=0",
    "trainer.enable_progress_bar=false",
    "trainer.max_epochs=1",
    "trainer.check_val_every_n_epoch=1",
    "callbacks.reconstructions=null",
    "callbacks.probes=null",
    "logger=csv",
)


def test_naming_option__leaves_out_what_does_not_vary():
    (option,) = naming_option(["-m", "seed=0,1", "name=x", "+a.b=3", "model=swin_t"])
    key, _, value = option.partition("=")
    assert key == "hydra.job.config.override_dirname.exclude_keys"
    assert value == "[a.b,model,name]"
    assert naming_option(["seed=0,1"]) == []


def job(sweep: Path, name: str, **facts: object) -> None:
    (sweep / name).mkdir(parents=True)
    record_job(sweep / name, **facts)


def test_write_table__settings_against_results(tmp_path, capsys):
    a, b = {"seed": "0", "lr": "1"}, {"seed": "1"}
    job(tmp_path, "a", settings=a, metric="val/loss", value=0.5, status="finished")
    job(tmp_path, "b", settings=b, metric="val/loss", value=None, status="failed")
    (tmp_path / "stranger").mkdir()
    job(tmp_path, "cut", settings={})
    (tmp_path / "cut/.job.json").write_text('{"settings": {"se')
    assert main(["sweep-table", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "seed", "lr", "val/loss", "status", "folder"
    ]  # fmt: skip
    with (tmp_path / "sweep.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["seed", "lr", "val/loss", "status", "folder"],
            ["0", "1", "0.5", "finished", "a"],
            ["1", "", "", "failed", "b"],
        ]


@pytest.mark.parametrize(
    ("codes", "status", "said"),
    [
        ((0, 0), 0, ""),
        ((0, 75), 75, "1 of 2 jobs stopped before their end: job1; the same command continues\n"),
        (
            (143, 2),
            2,
            "1 of 2 jobs did not finish: job1\n1 of 2 jobs stopped before their end: job0;",
        ),
    ],
)
def test_conclude_sweep__tells_stopped_from_failed(
    tmp_path, monkeypatch, capsys, codes, status, said
):
    names = {0: "finished", 2: "failed", 75: "stopped", 143: "stopped"}
    for at, code in enumerate(codes):
        job(tmp_path, f"job{at}", settings={}, started=5.0, status=names[code], exit_code=code)
    job(tmp_path, "before", settings={}, started=1.0, status="failed", exit_code=1)
    monkeypatch.setattr(SweepFolder, "path", tmp_path)
    assert conclude_sweep(since=5.0) == status
    assert capsys.readouterr().err.startswith(said)


def test_write_table__no_sweep(tmp_path):
    with pytest.raises(UserError, match="holds no job of a sweep"):
        write_table(tmp_path)


def test_last_value__of_the_most_wanted_column(tmp_path):
    path = tmp_path / "metrics.csv"
    assert math.isnan(last_value(path, ["a"]))
    path.write_text("step,a,a_best\n1,2,\n2,,5\n3,4,\nhalf")
    assert last_value(path, ["a_best", "a"]) == 5
    assert last_value(path, ["none", "a"]) == 4


@pytest.mark.long
def test_multirun__submitit_tells_stopped_jobs_and_goes_on_by_the_same_command(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    sweep = tmp_path / "runs/pretrain/s_sweep"
    words = [
        sys.executable,
        str(ROOT / "pretrain.py"),
        "-m",
        "hydra/launcher=submitit_local",
        *TINY,
    ]
    varied = ("seed=0,1", "name=s", "hydra.launcher.timeout_min=5", "trainer.max_epochs=300")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    with subprocess.Popen(
        [*words, *varied], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        for name in ("seed-0", "seed-1"):
            while not (sweep / name / "metrics.csv").exists():
                assert process.poll() is None
                time.sleep(0.05)
            owner = json.loads((sweep / name / ".owner.json").read_text())
            os.kill(owner["pid"], signal.SIGUSR1)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 138, said
    assert 'File "' not in said
    assert "2 of 2 jobs stopped before their end: seed-0, seed-1; the same command" in said
    assert all((sweep / name / "checkpoints/last.ckpt").exists() for name in ("seed-0", "seed-1"))
    limited = (*words, *varied, "trainer.max_time=00:00:00:01")
    again = subprocess.run(limited, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 75, again.stderr
    with (sweep / "sweep.csv").open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["stopped"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")])
def test_multirun__a_failing_job_does_not_take_the_others_with_it(tmp_path, launcher):
    if launcher:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    varied = ("objective.mask_ratio=0.5,1.5,0.6", "name=s")
    done = subprocess.run(
        [sys.executable, str(ROOT / "pretrain.py"), "-m", *launcher, *TINY, *varied],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert 'File "' not in done.stderr
    assert "1 of 3 jobs did not finish: objective.mask_ratio-1.5" in done.stderr
    sweep = tmp_path / "runs/pretrain/s_sweep"
    jobs = read_jobs(sweep)
    assert list(jobs) == [f"objective.mask_ratio-{ratio}" for ratio in ("0.5", "0.6", "1.5")]
    assert [found["exit_code"] for found in jobs.values()] == [0, 0, 2]
    for name in list(jobs)[:2]:
        with (sweep / name / "metrics.csv").open(newline="") as file:
            last = [row["val/loss"] for row in csv.DictReader(file) if row["val/loss"]][-1]
        assert json.loads((sweep / name / ".job.json").read_text())["value"] == float(last)


@pytest.mark.parametrize("metric", ["val/nope", "loss"])
def test_fit__refuses_to_sweep_for_a_metric_that_no_validation_has(monkeypatch, metric):
    model = SimpleNamespace(title="SimMIM", new_metrics=lambda: {"loss": None})
    run, module = (
        SimpleNamespace(cfg={"optimized_metric": metric}),
        SimpleNamespace(model=model),
    )
    monkeypatch.setattr(fitting, "sweep_name", lambda: None)
    fitting._check_optimized_metric(run, module)
    monkeypatch.setattr(fitting, "sweep_name", lambda: "sweep")
    with pytest.raises(UserError, match=f"no metric {metric} for optimized_metric; SimMIM has val"):
        fitting._check_optimized_metric(run, module)
    for known in ("val/loss", "train/loss", "probe/knn_top1/stage4", None):
        run.cfg["optimized_metric"] = known
        fitting._check_optimized_metric(run, module)


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")])
@pytest.mark.slow
def test_multirun__that_is_refused_leaves_no_folder(tmp_path, launcher):
    if launcher:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = multirun(tmp_path, *launcher, "objective.mask_ratio=1.5,2", "name=bad")
    assert done.returncode == 2
    names = "objective.mask_ratio-1.5, objective.mask_ratio-2"
    assert done.stderr.endswith(f"2 of 2 jobs did not finish: {names}\n")
    assert not (tmp_path / "runs/pretrain/bad_sweep").exists()
    assert multirun(tmp_path, "no.such.thing=1,2", "name=bad").returncode == 2
    assert not (tmp_path / "runs/pretrain/bad_sweep").exists()


@pytest.mark.parametrize(
    ("is_new", "others", "stays"),
    [(True, (), False), (False, (), True), (True, ("job0/config.yaml",), True)],
)
def test_conclude_sweep__removes_only_what_came_to_nothing(
    tmp_path, monkeypatch, is_new, others, stays
):
    sweep = tmp_path / "s_sweep"
    job(sweep, "job0", settings={}, started=5.0, status="failed", exit_code=2)
    (sweep / "multirun.yaml").touch()
    for name in others:
        (sweep / name).touch()
    monkeypatch.setattr(SweepFolder, "path", sweep)
    monkeypatch.setattr(SweepFolder, "is_new", is_new)
    assert conclude_sweep(since=5.0) == 2
    assert (sweep / "sweep.csv").exists() == sweep.exists() == stays


@pytest.mark.slow
def test_multirun__three_jobs_leave_three_offline_runs(tmp_path):
    done = multirun(tmp_path, "logger=wandb", "seed=0,1,2", "name=w")
    assert done.returncode == 0, done.stderr[-2000:]
    sweep = tmp_path / "runs/pretrain/w_sweep"
    files = sorted(sweep.glob("*/wandb/offline-run-*/run-*.wandb"))
    assert [file.parents[2].name for file in files] == ["seed-0", "seed-1", "seed-2"]
    assert len({file.stem for file in files}) == 3
    for file in files:
        logged = [row for row in wandb_history(file) if "samples_seen" in row]
        with (file.parents[2] / "metrics.csv").open(newline="") as metrics:
            rows = list(csv.DictReader(metrics))
        assert [row["trainer/global_step"] for row in logged] == [int(row["step"]) for row in rows]
        assert logged[-1]["trainer/global_step"] == 2
        losses = [float(row["val/loss"]) for row in rows if row["val/loss"]]
        assert [row["val/loss"] for row in logged if "val/loss" in row] == pytest.approx(losses)


def multirun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "pretrain.py"), "-m", *TINY, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=300,
    )

import csv
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from ssl_swin.errors import UserError
from ssl_swin.launch.search import Search
from ssl_swin.launch.search_space import distribution_of, setting, split_overrides
from ssl_swin.runs.sweep_table import read_jobs, record_job

ROOT = Path(__file__).parents[2]
SPACE = {"a": "interval(0.0, 1.0)", "b": "choice(x, 'y z')", "c": "range(1, 9, 2)"}


def searched(key: str, value: object):
    return distribution_of(split_overrides([], {key: value})[1][key])


def test_distribution_of__hydras_words():
    assert searched("a", "tag(log, interval(1e-5, 1e-2))") == (
        optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)
    )
    assert searched("a", "int(interval(1, 9))") == optuna.distributions.IntDistribution(1, 9)
    assert searched("a", SPACE["c"]) == optuna.distributions.IntDistribution(1, 7, step=2)
    choices = searched("a", SPACE["b"]).choices
    assert choices == ("x", r"y\ z")  # as Hydra can read them


def test_split_overrides__the_command_line_counts():
    fixed, found = split_overrides(["a=0.5", "d=1,2", "name=n"], SPACE)
    assert fixed == ["a=0.5", "name=n"]
    assert sorted(found) == ["b", "c", "d"]


def test_setting__is_short_and_inside():
    assert setting("a", 0.123456789, searched("a", SPACE["a"])) == "a=0.12346"
    assert setting("a", 0.9999999, searched("a", "interval(0, 0.99999991)")) == "a=0.9999999"


@pytest.mark.parametrize(
    ("value", "message"),
    [(1, "must be what can be searched"), ("choice(", "cannot read"), ([1, 2], "must be what can")],
)
def test_split_overrides__refuses(value, message):
    with pytest.raises(UserError, match=message):
        split_overrides([], {"a": value})


class Jobs:
    """A launcher: the result of a job is its `a`; without, it fails or is stopped."""

    def __init__(self, stop_at: int = -1, fail_at: int = -1) -> None:
        self.seen: list[list[str]] = []
        self.stop_at, self.fail_at = stop_at, fail_at

    def launch(self, batch, initial_job_idx):
        return [self.run(overrides) for overrides in batch]

    def run(self, overrides):
        self.seen.append(overrides)
        if len(self.seen) - 1 == self.stop_at:
            raise SystemExit(143)
        value = float(dict(o.split("=") for o in overrides)["a"])
        failed = len(self.seen) - 1 == self.fail_at
        return JobReturn(_return_value=math.nan if failed else value, status=JobStatus.COMPLETED)


def search(jobs: Jobs, n_trials: int, params=SPACE, **settings) -> Search:
    sampler = {"_target_": "optuna.samplers.TPESampler", "seed": 0, "n_startup_trials": 3}
    made = Search(params=params, n_trials=n_trials, sampler=sampler, **settings)
    made.config = OmegaConf.create({"optimized_metric": "val/loss"})
    made.launcher = jobs
    made.hydra_context = SimpleNamespace(
        config_loader=SimpleNamespace(load_sweep_config=lambda **_: None)
    )
    return made


def states(storage: str) -> list[str]:
    study = optuna.load_study(storage=storage, study_name="search")
    return [trial.state.name for trial in study.trials]


def test_sweep__a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    whole, first, second = Jobs(), Jobs(stop_at=4), Jobs()
    search(whole, 7).sweep(["name=n"])
    storage = f"sqlite:///{tmp_path}/s/optuna.db"
    with pytest.raises(SystemExit):
        search(first, 7, storage=storage).sweep(["name=n"])
    assert states(storage) == ["COMPLETE"] * 4 + ["RUNNING"]
    search(second, 7, storage=storage).sweep(["name=n"])
    assert states(storage) == ["COMPLETE"] * 7
    assert first.seen[-1] == second.seen[0]  # its run continues in the same folder
    assert first.seen[:-1] + second.seen == whole.seen
    with pytest.raises(UserError, match="another space"):
        search(second, 9, {"a": "interval(0, 2)"}, storage=storage).sweep([])


def test_sweep__a_failed_trial_is_told_as_failed(tmp_path, capsys):
    storage = f"sqlite:///{tmp_path}/optuna.db"
    search(Jobs(fail_at=1), 3, storage=storage).sweep([])
    assert states(storage) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "trial 2 of 3: no result with a=" in capsys.readouterr().out


def test_sweep__a_trial_that_was_stopped_is_continued_and_not_told(tmp_path):
    """As by trainer.max_time, which ends no other job."""
    storage, first, second = f"sqlite:///{tmp_path}/optuna.db", Jobs(), Jobs()
    run = first.run

    def run_for_a_while(overrides):
        job = run(overrides)
        folder = tmp_path / str(len(first.seen))
        folder.mkdir()
        record_job(folder, status="stopped" if len(first.seen) == 2 else "finished")
        job.hydra_cfg = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(folder)}}})
        return job

    first.run = run_for_a_while
    search(first, 4, storage=storage).sweep([])
    assert states(storage) == ["COMPLETE", "RUNNING"]
    search(second, 4, storage=storage).sweep([])
    assert states(storage) == ["COMPLETE"] * 4
    assert second.seen[0] == first.seen[1]


def test_sweep__equal_trials_at_a_time_run_once():
    jobs = Jobs()
    search(jobs, 4, {"a": "range(1, 3)"}, n_jobs=4).sweep([])
    assert sorted(jobs.seen) in ([["a=1"], ["a=2"]], [["a=1"]], [["a=2"]])


def test_sweep__without_optuna_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'ssl_swin\[search\]'"):
        search(Jobs(), 1).sweep([])


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"_target_": "os.system", "command": "touch ran"}, "a sampler of Optuna.*'os.system'"),
        ({"seed": 3}, "a sampler of Optuna, such as optuna.samplers.TPESampler, got None"),
    ],
)
def test_sweep__makes_samplers_of_optuna_alone(sampler, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = search(Jobs(), 1)
    made.sampler = sampler
    with pytest.raises(UserError, match=message):
        made.sweep([])
    assert not Path("ran").exists()


def test_sweep__without_a_sampler_takes_optunas():
    jobs, made = Jobs(), search(Jobs(), 2)
    made.launcher, made.sampler = jobs, None
    made.sweep([])
    assert len(jobs.seen) == 2


def test_search__refuses_a_space_that_is_none():
    with pytest.raises(UserError, match="params must be a group of settings, got 3"):
        Search(params=3, n_trials=1)


def test_sweep__refuses_a_search_that_would_measure_nothing():
    made = search(Jobs(), 1)
    trainer = {"check_val_every_n_epoch": 2, "max_epochs": 1}
    made.config = OmegaConf.create({"optimized_metric": "val/loss", "trainer": trainer})
    with pytest.raises(UserError, match=r"no trial would measure val/loss: .*=2 is more than .*=1"):
        made.sweep([])
    made.config.trainer.max_epochs = 2
    made.sweep([])
    made.config.optimized_metric, made.config.trainer.max_epochs = "train/loss", 1
    made.sweep([])


@pytest.mark.slow
def test_search__is_one_yaml_and_ends_in_the_sweeps_table(tmp_path):
    tiny = (
        "model.embed_dim=8 model.depths=[1,1,1] model.num_heads=[1,1,2] batch_size=8 num_workers=0 "
        "data.prepare.num_train=16 data.prepare.num_val=8 trainer.max_epochs=1 logger=csv "
        "trainer.check_val_every_n_epoch=1 "
        "trainer.enable_progress_bar=false callbacks.reconstructions=null callbacks.probes=null"
    )
    (tmp_path / "conf/search").mkdir(parents=True)
    (tmp_path / "conf/search/mine.yaml").write_text(
        "# @package _global_\n"
        "defaults: [{override /hydra/sweeper: optuna}]\n"
        "hydra: {sweeper: {n_trials: 4, params: {objective.mask_ratio: 'choice(0.6, 1.5)',"
        " optim.base_lr: 'interval(1e-4, 1e-3)'}}}\n"
    )
    line = ["-m", "search=mine", "name=s", *tiny.split()]
    done = subprocess.run(
        [sys.executable, str(ROOT / "pretrain.py"), *line],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert 'File "' not in done.stderr
    sweep = tmp_path / "runs/pretrain/s_sweep"
    jobs = read_jobs(sweep).values()
    failed = [job for job in jobs if job["status"] == "failed"]
    assert len(jobs) == 4 > len(failed) > 0
    assert failed == [job for job in jobs if job["settings"]["objective.mask_ratio"] == "1.5"]
    assert done.returncode == (2 if failed else 0)
    told = states(f"sqlite:///{sweep}/optuna.db")
    assert told.count("FAIL") == len(failed)
    assert "  table      runs/pretrain/s_sweep/sweep.csv" in done.stdout
    assert (sweep / "sweep.png").is_file()


@pytest.mark.slow
def test_search__goes_on_after_sigterm_where_it_was(tmp_path):
    tiny = (
        "model.embed_dim=8 model.depths=[1,1,1] model.num_heads=[1,1,2] batch_size=4 num_workers=0 "
        "data.prepare.num_train=400 data.prepare.num_val=8 trainer.max_epochs=1 logger=csv "
        "trainer.check_val_every_n_epoch=1 trainer.log_every_n_steps=1 "
        "trainer.enable_progress_bar=false callbacks.reconstructions=null callbacks.probes=null"
    )
    line = ["-m", "search=pretrain_lr", "hydra.sweeper.n_trials=2", "name=s", *tiny.split()]
    words = [sys.executable, str(ROOT / "pretrain.py"), *line]
    home = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    sweep, printed = tmp_path / "runs/pretrain/s_sweep", tmp_path / "printed"
    with printed.open("w") as output:
        stopped = subprocess.Popen(words, cwd=tmp_path, env=home, stdout=output, stderr=output)
    deadline = time.monotonic() + 120
    while not any(rows(path) > 9 for path in sweep.glob("*/metrics.csv")):
        assert stopped.poll() is None and time.monotonic() < deadline, printed.read_text()
        time.sleep(0.02)
    stopped.terminate()
    assert stopped.wait(60) == 143, printed.read_text()
    storage = f"sqlite:///{sweep}/optuna.db"
    assert states(storage) == ["RUNNING"]
    (before,) = sweep.glob("*/metrics.csv")
    assert 9 < rows(before) < 100
    done = subprocess.run(words, cwd=tmp_path, env=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "continuing from" in done.stdout
    assert states(storage) == ["COMPLETE"] * 2
    assert [rows(path) for path in sweep.glob("*/metrics.csv")] == [100, 100]
    assert {job["status"] for job in read_jobs(sweep).values()} == {"finished"}


@pytest.mark.slow
def test_search__two_trials_at_a_time(tmp_path):
    """Each in a process of joblib's, which starts further ones to draw and to load the data."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    tiny = (
        "model.embed_dim=8 model.depths=[1,1,1] model.num_heads=[1,1,2] batch_size=8 num_workers=1 "
        "data.prepare.num_train=16 data.prepare.num_val=8 trainer.max_epochs=1 logger=csv "
        "trainer.check_val_every_n_epoch=1 hydra.sweeper.n_trials=4 hydra.sweeper.n_jobs=2 "
        "hydra/launcher=joblib hydra.launcher.n_jobs=2 name=s "
        "trainer.enable_progress_bar=false callbacks.reconstructions=null callbacks.probes=null"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "pretrain.py"), "-m", "search=pretrain_lr", *tiny.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'File "' not in done.stdout + done.stderr
    sweep = tmp_path / "runs/pretrain/s_sweep"
    assert states(f"sqlite:///{sweep}/optuna.db") == ["COMPLETE"] * 4
    jobs = list(read_jobs(sweep).values())
    assert len(jobs) == 4 and {job["status"] for job in jobs} == {"finished"}
    began, ended = (
        [job["started"] for job in jobs],
        [path.stat().st_mtime for path in sweep.glob("*/.job.json")],
    )
    assert sorted(began)[1] < min(ended)  # the second began before the first was done


def rows(metrics: Path) -> int:
    """Steps in a metrics.csv, each of which stands there once."""
    with metrics.open(newline="") as file:
        steps = [row["step"] for row in csv.DictReader(file)]
    assert len(set(steps)) == len(steps)
    return len(steps)

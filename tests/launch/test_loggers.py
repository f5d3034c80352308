"""Weights & Biases out of reach, and dead in the middle of a run."""

import os
import signal
import sys
from pathlib import Path

import pytest
import wandb
from omegaconf import OmegaConf

import ssl_swin
from ssl_swin.errors import UserError
from ssl_swin.launch.composing import composed_for_user
from ssl_swin.launch.loggers import check_packages, check_place, close_logger, open_logger
from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.training.extras import guard_logger

SETTINGS = {
    "_target_": "lightning.pytorch.loggers.WandbLogger",
    "project": "p",
    "resume": "allow",
    "offline": False,
    "log_model": False,
    "settings": {"init_timeout": 1},
}


def wandb_processes() -> list[int]:
    """Children of this process that are W&B's own."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    paths = [Path(f"/proc/{pid}") for pid in children.read_text().split()]
    return [int(path.name) for path in paths if b"wandb-core" in (path / "cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds W&B's process in /proc")
def test_open_logger__without_a_server_logs_offline_and_survives_a_dead_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.teardown()  # it reads its environment once, and other tests of this process had another
    for name, value in (
        ("WANDB_MODE", "online"),
        ("WANDB_API_KEY", 40 * "a"),
        ("WANDB_BASE_URL", "http://127.0.0.1:9"),
        ("WANDB_ERROR_REPORTING", "false"),
    ):
        monkeypatch.setenv(name, value)
    failures = SideFailures(tmp_path)
    settings = OmegaConf.create({**SETTINGS, "save_dir": str(tmp_path)})
    logger = open_logger(settings, {"id": "abc123"}, failures)
    assert logger is not None
    assert os.environ["WANDB_MODE"] == "online"  # the next job of a sweep tries again
    assert len(list((tmp_path / "wandb").glob("offline-run-*-abc123"))) == 1
    printed = capsys.readouterr()
    assert "Weights & Biases cannot be used (CommError: " in printed.out
    assert "anonymous" not in printed.err
    assert failures.summary() == ""

    guard_logger(logger, failures)
    logger.log_metrics({"a": 1.0}, step=1)
    for process in wandb_processes():
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    for step in range(2, 6):
        logger.log_metrics({"a": 1.0}, step=step)
    close_logger(logger)
    assert failures.counts() == {"WandbLogger": 1}


@pytest.mark.parametrize(
    ("logger", "packages", "told"),
    [
        ("TensorBoardLogger", ["tensorboard", "tensorboardX"], "tensorboard or tensorboardX"),
        ("WandbLogger", ["wandb"], "wandb>="),
        ("mine", [], ""),
        ("CSVLogger", [], ""),
    ],
)
def test_check_packages(
    logger: str, packages: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = "ssl_swin.training.metrics_csv" if logger == "mine" else "lightning.pytorch.loggers"
    settings = {"_target_": f"{home}.{'MetricsCsv' if logger == 'mine' else logger}"}
    if logger != "TensorBoardLogger":  # which need not be installed
        check_packages(settings)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    if not told:
        return
    with pytest.raises(UserError, match=f"{logger} needs {told}.*, which is not installed"):
        check_packages(settings)


def test_check_packages__comes_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="TensorBoardLogger needs tensorboard"):
        ssl_swin.pretrain(["data=demo", "logger=tensorboard", f"run_dir={tmp_path}/run"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"project": "team/swin"}, "project"),
        ({"project": "swin", "entity": "a/b"}, "entity"),
        ({"project": "a?b"}, "project"),
        ({"project": " "}, "project"),
    ],
)
def test_check_place__refuses_what_is_no_name(settings: dict[str, str], key: str) -> None:
    with pytest.raises(UserError, match=rf"^logger.{key}='.*' is no name"):
        check_place(settings)


@pytest.mark.parametrize("tag", ["", 65 * "a"])
def test_check_place__refuses_what_is_no_tag(tag: str) -> None:
    check_place({"project": "swin", "tags": ["baseline", 64 * "a"]})
    with pytest.raises(UserError, match=r"^logger.tags has '.*': W&B takes tags of 1 to 64"):
        check_place({"project": "swin", "tags": ["baseline", tag]})


def test_check_place__tells_of_no_project_where_a_server_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    named, offline = {"project": "a", "entity": "my-team"}, {"project": None, "offline": True}
    for settings in (None, {}, named, offline):
        check_place(settings)
    assert capsys.readouterr().out == ""
    check_place({"project": None, "offline": False})
    assert capsys.readouterr().out.startswith("note: logger.project is not set")


def test_wandb_names__tell_a_probe_from_its_pretraining(tmp_path: Path) -> None:
    run = f"backbone={tmp_path}/runs/pretrain/first"
    for job, overrides, name in (
        ("pretrain", ["name=first"], "first"),
        ("finetune", [run], "finetune first_demo"),
        ("linear_probe", [run], "linear_probe first_demo"),
    ):
        cfg = composed_for_user(job, ["logger=wandb", "data=demo", *overrides])
        assert (cfg.logger.job_type, cfg.logger.name) == (job, name)

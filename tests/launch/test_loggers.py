"""Weights & Biases out of reach, and dead in the middle of a run."""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb
from disks import fill, remount, small_disk
from omegaconf import OmegaConf
from refusing_server import Refusing

import ssl_swin
from ssl_swin.errors import UserError
from ssl_swin.launch.composing import composed_for_user
from ssl_swin.launch.loggers import (
    _end_wandb,
    check_packages,
    check_place,
    close_logger,
    folder_of,
    open_logger,
)
from ssl_swin.launch.quiet import quiet_libraries
from ssl_swin.launch.resolvers import wandb_offline
from ssl_swin.runs.side_failures import SideFailures
from ssl_swin.training.dashboards import dashboard
from ssl_swin.training.extras import guard_logger
from ssl_swin.training.progress import StepAt

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


@pytest.fixture
def wandb_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No key and no server but what a test gives."""
    _end_wandb()  # it reads its environment once
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    quiet_libraries()
    yield
    _end_wandb()


def write_key(path: Path, host: str) -> None:
    path.write_text(f"machine {host} login user password {40 * 'a'}\n")
    path.chmod(0o600)


def test_wandb_offline__a_key_by_netrc_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb_environment: None
) -> None:
    assert wandb_offline()
    write_key(tmp_path / ".netrc", "api.wandb.ai")
    assert not wandb_offline()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert wandb_offline()  # the key is another server's
    write_key(tmp_path / "elsewhere", "127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "elsewhere"))
    assert not wandb_offline()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["netrc, no server", "a key that the server refuses"])
def test_open_logger__of_no_use_online_logs_offline(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wandb_environment: None,
    capfd: pytest.CaptureFixture[str],
    how: str,
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = "127.0.0.1:9" if "netrc" in how else f"127.0.0.1:{server.server_port}"
        monkeypatch.setenv("WANDB_BASE_URL", f"http://{host}")
        if "netrc" in how:
            write_key(tmp_path / ".netrc", host)
        else:
            monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
        settings = {**SETTINGS, "save_dir": str(tmp_path), "offline": wandb_offline()}
        failures = SideFailures(tmp_path)
        logger = open_logger(OmegaConf.create(settings), {"id": "abc123"}, failures)
        assert logger is not None and not settings["offline"]
        close_logger(logger)
        server.shutdown()
    assert len(list((tmp_path / "wandb").glob("offline-run-*-abc123"))) == 1
    said = capfd.readouterr()
    (told,) = [line for line in said.out.splitlines() if "cannot be used" in line]
    reason = "context deadline exceeded" if "netrc" in how else "returned error 401"
    assert reason in told and "logging offline under the same id" in told
    assert 'File "' not in said.out + said.err
    assert failures.counts() == {}


def log_rows(
    settings: dict[str, Any], folder: Path, at_50: Callable[[], None] = lambda: None
) -> SideFailures:
    """Logs a hundred rows as a run does; something happens after fifty."""
    failures, progress = SideFailures(folder), StepAt()
    identity = {"id": "abc123"} if "project" in settings else {}
    opened = open_logger(OmegaConf.create(settings), identity, failures)
    if opened is not None:
        passing_on = dashboard(opened, progress)
        guard_logger(passing_on, failures, folder_of(opened))
        for progress.step in range(100):
            if progress.step == 50:
                at_50()
            passing_on.log_metrics({"a": 1.0})
        passing_on.finalize("success")
        close_logger(opened)
    return failures


TENSORBOARD = {
    "_target_": "lightning.pytorch.loggers.TensorBoardLogger",
    "name": "tensorboard",
    "version": "",
}
KINDS = {"TensorBoardLogger": TENSORBOARD, "WandbLogger": {**SETTINGS, "offline": True}}


@pytest.mark.slow
@pytest.mark.parametrize("full_from", ["the start", "the middle"])
@pytest.mark.parametrize("kind", KINDS)
def test_dashboard__whose_folder_is_full(
    tmp_path: Path,
    wandb_environment: None,
    capfd: pytest.CaptureFixture[str],
    kind: str,
    full_from: str,
) -> None:
    pytest.importorskip("tensorboard")
    with small_disk(tmp_path / "small", 400_000) as disk:
        settings = {**KINDS[kind], "save_dir": str(disk)}
        if full_from == "the start":
            fill(disk)
        happens = partial(fill, disk) if full_from == "the middle" else lambda: None
        failures = log_rows(settings, tmp_path, happens)
    assert failures.counts() == {kind: 1}
    said = capfd.readouterr()
    assert 'File "' not in said.out + said.err
    (told,) = [line for line in said.out.splitlines() if "failed: " in line]
    assert told.startswith(f"{kind} failed: ") and "No space left on device; training goes" in told


@pytest.mark.slow
def test_wandb__whose_folder_is_read_only_says_where_it_writes(
    tmp_path: Path, wandb_environment: None, capfd: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "small", 400_000) as disk:
        remount(disk, "ro")
        failures = log_rows({**KINDS["WandbLogger"], "save_dir": str(disk)}, tmp_path)
    assert failures.counts() == {}
    (told,) = capfd.readouterr().out.splitlines()
    place = re.fullmatch(rf"note: {disk} takes no files of .*, which writes them to (.+)", told)
    assert place is not None and list(Path(place[1]).glob("run-abc123.wandb"))


def test_tensorboard__whose_folder_is_a_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("")
    failures = log_rows({**TENSORBOARD, "save_dir": str(tmp_path)}, tmp_path)
    assert failures.counts() == {"TensorBoardLogger": 1}
    (told,) = capfd.readouterr().out.splitlines()
    assert told.startswith("TensorBoardLogger failed: ")
    assert "tensorboard" in told and "training goes on without it" in told


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

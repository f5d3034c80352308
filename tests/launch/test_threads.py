"""How compute threads wait, and how many there are on a busy machine."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ssl_swin.launch import script, threads
from ssl_swin.launch.threads import (
    OF_A_USER,
    WAITING,
    idle_cores,
    sleep_while_waiting,
    threads_for_this_machine,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OF_A_USER, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is as before after the test
        monkeypatch.delenv(name)


def test_sleep_while_waiting__sets_both_variables() -> None:
    sleep_while_waiting()
    assert {name: os.environ[name] for name in WAITING} == {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "1000",
    }


@pytest.mark.parametrize("name", OF_A_USER)
def test_sleep_while_waiting__leaves_what_the_user_chose(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "ACTIVE")
    sleep_while_waiting()
    assert {each: os.environ[each] for each in OF_A_USER if each in os.environ} == {name: "ACTIVE"}


def test_run_job__sets_the_policy_before_it_imports_the_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str | None] = []

    def job_module(name: str) -> Any:
        seen.append(os.environ.get("OMP_WAIT_POLICY"))
        return SimpleNamespace(main=lambda cfg: None)

    monkeypatch.setattr(importlib, "import_module", job_module)
    script.run_job("pretrain", OmegaConf.create({}))
    assert seen == ["PASSIVE"]


class TwoLooks:
    """Stands for /proc/stat: 100 ticks pass, core 0 is idle in 30 and core 1 in 90."""

    def __init__(self) -> None:
        self.texts = [
            "cpu  9 9 9 9 9\ncpu0 100 0 0 500 0 0 0 0 7 7\ncpu1 50 0 0 100 10 0 0 0\nintr 5\n",
            "cpu  9 9 9 9 9\ncpu0 170 0 0 530 0 0 0 0 9 9\ncpu1 60 0 0 100 100 0 0 0\nintr 5\n",
        ]

    def read_text(self) -> str:
        return self.texts.pop(0)


def test_idle_cores__adds_up_the_idle_shares_of_the_cores_it_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    assert idle_cores(TwoLooks(), 0.0) == pytest.approx(0.3 + 0.9)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1})
    assert idle_cores(TwoLooks(), 0.0) == pytest.approx(0.9)  # type: ignore[arg-type]


def test_idle_cores__unknown_without_counters(tmp_path: Path) -> None:
    assert idle_cores(tmp_path / "stat", 0.0) is None


@pytest.mark.parametrize(("idle", "expected"), [(0.1, 1), (2.6, 3), (9.0, 4), (None, 4)])
def test_threads_for_this_machine__as_many_as_cores_are_idle(
    idle: float | None,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(threads, "idle_cores", lambda: idle)
    counts = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    with threads_for_this_machine():
        assert counts[-1] == expected
    assert counts[-1] == 4
    assert (f"so {expected} thread" in capsys.readouterr().out) == (expected < 4)


def test_threads_for_this_machine__leaves_a_number_that_the_user_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(threads, "idle_cores", lambda: pytest.fail("looked"))
    with threads_for_this_machine():
        assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP is torch's on Linux")
def test_scripts__openmp_reads_the_policy(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "pretrain.py"), "--cfg", "job", "--resolve"]
    environment = {**os.environ, "OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert "GOMP_SPINCOUNT = '1000'" in done.stderr

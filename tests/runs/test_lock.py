"""One process at a time in a run's folder; one that is gone blocks nobody."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssl_swin.errors import UserError
from ssl_swin.runs import lock as module
from ssl_swin.runs.lock import RunLock


def new_lock(folder: Path) -> RunLock:
    return RunLock(folder, when_lost=pytest.fail)


@pytest.fixture
def other() -> Iterator[int]:
    """Another process that is alive."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.kill()
    process.wait()


def owned_by(folder: Path, **changes: Any) -> None:
    owner = {**module._this_process(), **changes}
    (folder / ".owner.json").write_text(json.dumps(owner))


def test_acquire__refuses_a_folder_whose_owner_is_alive(tmp_path: Path, other: int) -> None:
    owned_by(tmp_path, pid=other, started=module._start_of(other), since="a while ago")
    with pytest.raises(UserError, match=f"is in use: process {other} on .* since a while ago"):
        new_lock(tmp_path).acquire(say=pytest.fail)


def test_acquire__takes_over_from_a_dead_owner_and_a_reused_number(
    tmp_path: Path, other: int
) -> None:
    for changes in ({"pid": 2**22 + 1}, {"pid": other, "started": "1"}):
        owned_by(tmp_path, **changes)
        lock = new_lock(tmp_path)
        lock.acquire(say=pytest.fail)
        lock.release()
    assert not (tmp_path / ".owner.json").exists()


def test_acquire__takes_over_from_another_machine_without_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GONE_AFTER_S", 0.1)
    owned_by(tmp_path, host="gone")
    said: list[str] = []
    lock = new_lock(tmp_path)
    lock.acquire(say=said.append)
    lock.release()
    assert len(said) == 1
    assert "on gone had" in said[0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\0"])
def test_acquire__is_not_kept_by_a_damaged_file(tmp_path: Path, content: str) -> None:
    (tmp_path / ".owner.json").write_text(content)
    lock = new_lock(tmp_path)
    lock.acquire(say=pytest.fail)
    lock.release()


def test_check_same_launch__lets_the_processes_of_one_run_in(tmp_path: Path, other: int) -> None:
    owned_by(tmp_path, pid=other, started=module._start_of(other))
    new_lock(tmp_path).check_same_launch()
    owned_by(tmp_path, pid=other, started=module._start_of(other), launch={"MASTER_PORT": "1"})
    with pytest.raises(UserError, match="is in use"):
        new_lock(tmp_path).check_same_launch()


def test_give_signs__a_lock_that_is_released_meanwhile_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next job of a process may have the folder by the time that the file was read."""
    lost: list[str] = []
    lock = RunLock(tmp_path, when_lost=lost.append)
    owner = {**module._this_process(), "pid": 1}

    def read_late(path: Path) -> dict[str, Any]:
        lock.release()
        return {**owner, "pid": 2}

    monkeypatch.setattr(module, "SIGN_OF_LIFE_S", 0.0)
    monkeypatch.setattr(module, "_read", read_late)
    lock._give_signs(owner)
    assert not lost

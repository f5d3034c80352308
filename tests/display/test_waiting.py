"""The line of a long step."""

import io
import sys
import threading
import time

import pytest

from ssl_swin.display.waiting import waiting

LIMIT_S = 20


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes when it is told to."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def wait_for(text: str, stream: io.StringIO) -> None:
    deadline = time.monotonic() + LIMIT_S
    while text not in stream.getvalue():
        assert time.monotonic() < deadline, stream.getvalue()
        time.sleep(0.01)


def test_waiting__a_terminal_shows_the_time_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(sys, "stderr", terminal)
    with waiting("uploading x", after_s=0.01, clock=clock):
        wait_for("uploading x", terminal)
        clock.now_s += 65
        wait_for("2 min", terminal)
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert sys.stderr is terminal


def test_waiting__a_file_gets_a_line_after_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    file, clock = io.StringIO(), Clock()
    monkeypatch.setattr(sys, "stderr", file)
    with waiting("importing x", after_s=0.01, clock=clock):
        clock.now_s += 29
        time.sleep(0.1)
        assert file.getvalue() == ""
        clock.now_s += 2
        wait_for("importing x", file)
    assert file.getvalue() == "importing x | 31 s\n"  # in ASCII, as of a stream of no encoding


def test_waiting__of_short_work_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with waiting("exporting x", after_s=LIMIT_S):
        pass
    assert terminal.getvalue() == ""


def test_waiting__what_the_work_raises_passes_and_the_line_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyError), waiting("exporting x", after_s=0.01):
        wait_for("exporting x", terminal)
        raise KeyError
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert "waiting" not in [thread.name for thread in threading.enumerate()]


def test_waiting__other_processes_of_a_job_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("RANK", "1")
    with waiting("exporting x", after_s=0.0):
        assert "waiting" not in [thread.name for thread in threading.enumerate()]
    assert terminal.getvalue() == ""

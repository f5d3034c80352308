"""What a file and a terminal get, by a clock of the test."""

import io
import sys

import pytest

from ssl_swin.display.pace import Pace
from ssl_swin.display.work import Work, followed


class Clock:
    """Time that passes when it is told to."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_pace__seldom_with_time() -> None:
    clock = Clock()
    pace = Pace(100.0, at_once=True, clock=clock)
    lines = []
    for second in range(700):
        clock.now_s = 1000.0 + second
        if pace.due():
            lines.append(second)
    assert lines == [0, 30, 75, 143, 243, 343, 443, 543, 643]


def test_pace__never_slower_than_asked_for() -> None:
    clock = Clock()
    pace = Pace(5.0, clock=clock)
    due = []
    for second in range(21):
        clock.now_s = 1000.0 + second
        due += [second] if pace.due() else []
    assert due == [5, 10, 15, 20]


def test_work__lines_into_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with Work("packing", 4000, done=1000, clock=clock) as work:
        for _ in range(30):
            clock.now_s += 2.0
            work.advance(100, "0 bad")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "packing 2,500 of 4,000 images · 50 images/s · 0 bad · 30 s left",
        "packing 4,000 of 4,000 images · 50 images/s · 0 bad · done in 1 min",
    ]


def test_work__nothing_of_short_or_hidden_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(followed("abc", "reading", 3)) == ["a", "b", "c"]
    clock = Clock()
    with Work("packing", 10, show=False, clock=clock) as work:
        clock.now_s += 1000.0
        work.advance(10)
    assert capsys.readouterr() == ("", "")


def test_work__a_line_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Work("checking", 200, clock=clock) as work:
        for number in range(4):
            clock.now_s += 0.25
            work.advance(25)
            if number == 0:
                print("note: one image is gray", file=sys.stderr)
    drawn = terminal.getvalue().split("\r\x1b[K")
    assert drawn == [
        "━━────────────────── checking 25 of 200 images · 100 images/s · 2 s left",
        "note: one image is gray\n━━━━━━━───────────── checking 75 of 200 images · 100 images/s"
        " · 2 s left",
        "",
    ]
    assert sys.stderr is terminal


def test_work__in_ascii_where_the_terminal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = Terminal(), Clock()
    terminal.encoding = "iso8859-1"
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Work("checking", 2, clock=clock) as work:
        work.advance()
    assert terminal.getvalue() == "##########---------- checking 1 of 2 images\r\x1b[K"


def test_work__lines_where_a_terminal_cannot_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with Work("checking", None, "shards", clock=clock) as work:
        clock.now_s += 40.0
        work.advance(4)
    assert terminal.getvalue() == "checking 4 shards · 0.1 shards/s\n"


def test_work__of_another_process_is_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    for first in (False, True):
        monkeypatch.setenv("RANK", "0" if first else "4")
        with Work("reading", 2, clock=clock) as work:
            clock.now_s += 40.0
            work.advance(1)
        assert (capsys.readouterr().err != "") == first

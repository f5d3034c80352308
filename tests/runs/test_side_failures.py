"""Failures beside the training: told once, written down each time, counted over all starts."""

from pathlib import Path

import pytest

from ssl_swin.errors import UserError
from ssl_swin.runs.side_failures import SideFailures, reason


def test_allowed__tells_once_and_writes_every_traceback(tmp_path: Path) -> None:
    told: list[str] = []
    failures = SideFailures(tmp_path / "run", told.append)
    for _ in range(2):
        with failures.allowed("a picture"):
            raise ValueError("\n\nno colour\nmore of it")
    with failures.allowed("the report", "the run is whole"):
        raise UserError("no space")
    path = tmp_path / "run/errors.log"
    assert told == [
        f"a picture failed: ValueError: no colour; training goes on, the traceback is in {path}",
        f"the report failed: no space; the run is whole, the traceback is in {path}",
    ]
    assert path.read_text().count("Traceback (most recent call last)") == 3
    assert SideFailures(tmp_path / "run").summary() == (
        f"failed beside the training: a picture 2 times, the report; see {path}"
    )


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_allowed__passes_what_ends_the_process(tmp_path: Path, end: type[BaseException]) -> None:
    with pytest.raises(end), SideFailures(tmp_path).allowed("a picture"):
        raise end
    assert SideFailures(tmp_path).summary() == ""


def test_add__nowhere_to_write_is_no_failure_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told: list[str] = []
    SideFailures(tmp_path / "file", told.append).add("a picture", OSError("No space left"))
    assert len(told) == 1


def test_reason__names_the_type_of_an_error_without_words() -> None:
    assert reason(MemoryError()) == "MemoryError"

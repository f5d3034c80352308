"""Blocks of lines are judged as their lines are one by one."""

import io
import random

import numpy as np
import pytest

from ssl_swin.runs import metrics_blocks
from ssl_swin.runs.metrics_blocks import blocks, steps_of_whole
from ssl_swin.runs.metrics_rows import LineCheck, step_of

COLUMNS = ("step", "epoch", "loss")
WHOLE = [b"1,,\n", b"2,0,0.125\n", b"30,1,-1.5e-07\n", b"401,1,nan\n", b"5000,2,-inf\n"]
DAMAGED = [
    b"7,0\n",
    b"7,0,1,2\n",
    b"7,0,1.2.3\n",
    b"7,0,1e\n",
    b"7,0,e5\n",
    b"7,0,-\n",
    b"7,0,1-2\n",
    b",0,1\n",
    b"-7,0,1\n",
    b"\n",
    b"7,0,1\r\n",
    b'"7",0,1\n',
    b"7,0,1",
    b"\0\0\0\n",
    b"7" * 19 + b",0,1\n",
    b"\xff,0,1\n",
]


def judged_one_by_one(lines: list[bytes]) -> list[int] | None:
    check = LineCheck(COLUMNS)
    if any(check.whole_line(line) != line for line in lines):
        return None
    steps = [step_of(line) for line in lines]
    return steps if steps == sorted(set(steps)) else None


def test_steps_of_whole() -> None:
    steps = steps_of_whole(b"".join(WHOLE), LineCheck(COLUMNS))
    assert steps is not None
    assert steps.tolist() == [1, 2, 30, 401, 5000]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_steps_of_whole__one_damaged_line_is_seen(damaged: bytes) -> None:
    assert steps_of_whole(b"".join([*WHOLE, damaged]), LineCheck(COLUMNS)) is None
    assert judged_one_by_one([damaged]) is None


@pytest.mark.parametrize("steps", [(2, 1), (1, 1), (10**17, 10**17)])
def test_steps_of_whole__out_of_order(steps: tuple[int, ...]) -> None:
    lines = b"".join(b"%d,,\n" % step for step in steps)
    assert steps_of_whole(lines, LineCheck(COLUMNS)) is None


def test_steps_of_whole__agrees_with_lines_one_by_one() -> None:
    draw, number_seen = random.Random(0), 0
    for _ in range(3000):
        lines = [
            b"%d,%s,%s\n" % (
                step,
                bytes(draw.choices(b"0123456789", k=draw.randint(0, 3))),
                bytes(draw.choices(b"0123456789.e+-", k=draw.randint(0, 4))),
            )
            for step in draw.sample(range(200), 2)
        ]  # fmt: skip
        expected = judged_one_by_one(lines)
        found = steps_of_whole(b"".join(lines), LineCheck(COLUMNS))
        assert (None if found is None else found.tolist()) == expected, lines
        number_seen += expected is not None
    assert number_seen > 100


def test_blocks__end_with_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_blocks, "BLOCK_BYTES", 5)
    text = b"1,2\n3,4\n5,6\n\n7777,8888\n9"
    found = list(blocks(io.BytesIO(text)))
    assert b"".join(found) == text
    assert len(found) > 2
    assert all(block.endswith(b"\n") for block in found[:-1])


def test_blocks__a_line_without_end_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_blocks, "BLOCK_BYTES", 10)
    monkeypatch.setattr(metrics_blocks, "LONGEST_LINE", 10)
    assert max(map(len, blocks(io.BytesIO(bytes(1000))))) == 20


def test_first_numbers__the_longest_step_fits() -> None:
    longest = 10**18 - 1
    steps = steps_of_whole(b"1,,\n%d,,\n" % longest, LineCheck(COLUMNS))
    assert steps is not None
    assert steps.tolist() == [1, longest]
    assert steps.dtype == np.int64

import csv
import math
import os
from pathlib import Path

import pytest

from ssl_swin.errors import UserError
from ssl_swin.runs import metrics_rows
from ssl_swin.runs.metrics_file import MetricsFile

HEADER = "step,epoch,samples_seen,train/loss"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.csv"


def steps(path: Path) -> list[int]:
    with path.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def filled(path: Path, *, last: int) -> MetricsFile:
    file = MetricsFile(path)
    for step in range(0, last + 1, 10):
        file.write(step, {"epoch": step // 20, "samples_seen": 4 * step, "train/loss": step / 3})
    return file


def read(path: Path) -> tuple[MetricsFile, str]:
    file = MetricsFile(path)
    return file, file.read()


def test_write__appends_and_reads_back_to_the_byte(path):
    filled(path, last=30)
    written = path.read_text()
    assert written == f"{HEADER}\n0,0,0,0\n10,0,40,3.333333\n20,1,80,6.666667\n30,1,120,10\n"
    file, note = read(path)
    assert (note, path.read_text()) == ("", written)
    file.write(40, {"train/loss": 1.5})
    assert path.read_text() == written + "40,,,1.5\n"


def test_write__a_row_costs_one_line_not_the_file(path, monkeypatch):
    file = filled(path, last=500)
    wrote: list[int] = []
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *args: wrote.append(len(args[1])) or pwrite(*args))
    for step in range(501, 601):
        file.write(step, {"train/loss": 0.5})
    assert sum(wrote) == 100 * len("501,,,0.5\n")


def test_write__values_of_the_last_row_are_added_and_replaced(path):
    file = filled(path, last=10)
    file.write(10, {"train/loss": 123456.5})  # longer
    file.write(10, {"train/loss": 2})  # shorter: nothing of the longer one stays
    file.write(10, {"val/loss": 3})
    file.write(10, {"val/loss": math.nan})
    assert path.read_text() == f"{HEADER},val/loss\n0,0,0,0,\n10,0,40,2,nan\n"


def test_write__new_columns_come_last_and_widen_every_row(path):
    file = filled(path, last=20)
    file.write(30, {"b": 1, "a": 2})
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == ["step", "epoch", "samples_seen", "train/loss", "b", "a"]
    assert {len(row) for row in rows} == {6}
    assert rows[2] == ["10", "0", "40", "3.333333", "", ""]
    assert rows[-1] == ["30", "", "", "", "1", "2"]


def test_write__going_back_drops_what_is_done_again(path):
    file = filled(path, last=30)
    file.write(15, {"train/loss": 7})
    assert steps(path) == [0, 10, 15]
    file.write(20, {"train/loss": 8})
    assert steps(path) == [0, 10, 15, 20]


@pytest.mark.parametrize(
    ("step", "kept"), [(-1, []), (0, [0]), (19, [0, 10]), (20, [0, 10, 20]), (99, [0, 10, 20, 30])]
)
def test_forget_after__keeps_what_a_checkpoint_covers(path, step, kept):
    filled(path, last=30)
    file, _ = read(path)
    file.forget_after(step)
    assert steps(path) == kept
    file.write(99, {"train/loss": 1})
    assert steps(path) == [*kept, 99]


def test_rows__are_read_back_by_step(path):
    file = filled(path, last=30)
    assert list(file.rows(after=0, up_to=20)) == [
        (10, {"epoch": 0, "samples_seen": 40, "train/loss": 3.333333}),
        (20, {"epoch": 1, "samples_seen": 80, "train/loss": 6.666667}),
    ]
    assert list(MetricsFile(path).rows(after=-1, up_to=99)) == []


@pytest.mark.parametrize("read_bytes", [1, 60, 1 << 16])
def test_forget_after_and_rows__find_a_step_wherever_it_is(path, monkeypatch, read_bytes):
    monkeypatch.setattr("ssl_swin.runs.metrics_file._READ_BYTES", read_bytes)
    for last in range(-1, 205, 5):
        file = filled(path, last=200)
        expected = [step for step in range(0, 201, 10) if step <= last]
        after = [step for step, _ in file.rows(after=last, up_to=999)]
        assert (*expected, *after) == tuple(range(0, 201, 10))
        file.forget_after(last)
        assert steps(path) == expected
        path.unlink()


def test_forget_after__reads_a_small_part_of_a_long_file(path, monkeypatch):
    line = b"%d,,,0.5\n"
    path.write_bytes(f"{HEADER}\n".encode() + b"".join(line % step for step in range(300_000)))
    file, seen = read(path)[0], []
    counted = metrics_rows.step_of
    monkeypatch.setattr(
        "ssl_swin.runs.metrics_file.step_of", lambda line: seen.append(1) or counted(line)
    )
    file.forget_after(200_000)
    assert 0 < len(seen) < 10_000
    assert steps(path)[-1] == 200_000


def test_read__one_damaged_line_in_a_long_file(path):
    lines = [b"%d,1,2,0.25\n" % step for step in range(100_000)]
    lines[75_000] = b"75000,1,x,0.25\n"
    path.write_bytes(f"{HEADER}\n".encode() + b"".join(lines))
    _, note = read(path)
    assert "had 1 line that is damaged" in note
    assert set(range(100_000)) - set(steps(path)) == {75_000}


def test_read__last_row_of_any_length(path):
    file = MetricsFile(path)
    for step in (1, 2):
        file.write(step, {f"metric_{i}": 1 / 7 for i in range(2000)})
    file, note = read(path)
    file.write(2, {"metric_0": 5})
    assert (note, steps(path)) == ("", [1, 2])


DAMAGE = {  # what stands in the file: steps that stay, lines that are left out
    "last line cut": (f"{HEADER}\n0,0,0,0\n10,0,40,3.3", [0], 1),
    "last line cut after a cell": (f"{HEADER}\n0,0,0,0\n10,0,40", [0], 1),
    "strange cell": (f"{HEADER}\n0,0,0,zero\n10,0,40,1\n", [10], 1),
    "strange step": (f"{HEADER}\n0,0,0,1\nten,0,40,1\n", [0], 1),
    "NUL bytes": (f"{HEADER}\n0,0,0,1\n\0\0\0\0\0\n20,0,1,1\n", [0, 20], 1),
    "NUL bytes to the end": (f"{HEADER}\n0,0,0,1\n" + "\0" * 5000, [0], 1),
    "row too long": (f"{HEADER}\n0,0,0,1\n10,0,40,1,9\n", [0], 1),
    "row too short": (f"{HEADER}\n0,0,0,1\n10,0\n20,0,40,1\n", [0, 20], 1),
    "empty line": (f"{HEADER}\n0,0,0,1\n\n20,0,40,1\n", [0, 20], 1),
    "steps that go back": (f"{HEADER}\n0,,,1\n20,,,1\n10,,,1\n20,,,\n30,,,2\n", [0, 20, 30], 2),
    "not text": (f"{HEADER}\n0,0,0,1\n\udcff\udcfe,0,0,1\n", [0], 1),
    "a quote that never ends": (f'{HEADER}\n0,0,0,1\n"10,0,0,1\n20,,,1\n', [0, 20], 1),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_read__leaves_damaged_lines_out_and_keeps_the_file_aside(path, case):
    content, kept, num_damaged = DAMAGE[case]
    path.write_bytes(content.encode(errors="surrogateescape"))
    file, note = read(path)
    assert steps(path) == kept
    aside = path.with_name("metrics.damaged.csv")
    assert aside.read_bytes() == content.encode(errors="surrogateescape")
    assert f"had {num_damaged} line" in note
    assert str(aside) in note
    file.write(100, {"train/loss": 1})
    assert steps(path) == [*kept, 100]
    assert read(path)[1] == ""


@pytest.mark.parametrize(
    "content",
    ["0,0,0,1\n10,0,40,1\n", "\0" * 100, "a,b\n1,2\n", "step,epoch,tra", "step,a,a\n", "\n"],
)
def test_read__without_a_header_the_file_is_set_aside(path, content):
    path.write_text(content)
    path.with_name("metrics.damaged.csv").touch()  # of an earlier accident
    file, note = read(path)
    assert "has no header" in note
    assert path.with_name("metrics.damaged1.csv").read_text() == content
    file.write(5, {"train/loss": 1})
    assert path.read_text() == f"{HEADER}\n5,,,1\n"


@pytest.mark.parametrize("content", ["", HEADER + "\n"])
def test_read__a_file_without_rows_is_whole(path, content):
    path.write_text(content)
    file, note = read(path)
    file.write(5, {"train/loss": 1})
    assert (note, path.read_text()) == ("", f"{HEADER}\n5,,,1\n")


def test_read__takes_what_a_spreadsheet_wrote(path):
    path.write_bytes(
        b'\xef\xbb\xbfstep,epoch,samples_seen,train/loss\r\n"0",0,0,.5\r\n10,0,40,1E-3\r\n'
    )
    file, note = read(path)
    assert note == ""
    file.write(20, {"train/loss": 1})
    assert path.read_text() == f"{HEADER}\n0,0,0,.5\n10,0,40,1E-3\n20,,,1\n"


def test_read__brings_a_file_of_version_0_1_0_up_to_date(path):
    """There losses and val/loss stood a step before probes of the same moment."""
    path.write_text(
        "step,epoch,probe/knn_top1/stage1,train/loss,val/loss\n"
        "0,,20,,\n9,0,,0.5,\n10,,30,,\n11,0,,0.25,0.75\n12,1,40,0.125,\n"
    )
    _, note = read(path)
    assert note == ""
    updated = (
        "step,epoch,samples_seen,probe/knn_top1/stage1,train/loss,val/loss\n"
        "0,,,20,,\n10,0,,30,0.5,\n12,0,,40,0.25,0.75\n13,1,,,0.125,\n"
    )
    assert path.read_text() == updated
    read(path)
    assert path.read_text() == updated  # and does so once


def test_write__notices_that_the_file_was_removed_or_cut(path):
    file = filled(path, last=20)
    path.unlink()
    file.write(30, {"train/loss": 1})
    assert steps(path) == [30]
    os.truncate(path, path.stat().st_size - 3)
    file.write(40, {"train/loss": 1})
    assert steps(path) == [40]


def test_write__full_disk_leaves_whole_lines(path, monkeypatch):
    file = filled(path, last=20)
    written, pwrite = path.read_text(), os.pwrite

    def full(handle: int, text: bytes, at: int) -> int:
        pwrite(handle, text[:3], at)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UserError, match=r"cannot write .*metrics.csv: No space left on device"):
        file.write(30, {"train/loss": 1})
    monkeypatch.undo()
    assert path.read_text() == written
    file.write(30, {"train/loss": 1})
    assert steps(path) == [0, 10, 20, 30]


def test_write__failure_while_widening_leaves_the_old_file(path, monkeypatch):
    file = filled(path, last=20)
    written = path.read_text()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space"):
        file.write(30, {"new": 1})
    assert path.read_text() == written
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.csv"]
    monkeypatch.undo()
    file.write(30, {"new": 1})
    assert steps(path) == [0, 10, 20, 30]

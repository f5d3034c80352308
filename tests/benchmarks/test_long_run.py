"""The benchmark of long runs: what it simulates, what it sees of processes, and its tables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.long_run.__main__ import files_table, main, processes_table
from benchmarks.long_run.processes import Use, look, slope, watch
from benchmarks.long_run.simulated import ACTS, Done, reopen, report, rows, write_metrics
from ssl_swin.reporting.curves import read_curves


def test_rows__of_every_kind() -> None:
    found = dict(rows(50_000, 10))
    assert [*found] == list(range(10, 50_001, 10))
    assert "val/loss" in found[2500]
    assert "val/loss" not in found[2510]
    probed = [step for step, values in found.items() if "probe/knn_top1/stage1" in values]
    assert probed == [25_000, 50_000]


def test_acts__leave_what_a_run_leaves(tmp_path: Path) -> None:
    write_metrics(tmp_path, 3000, 10)
    metrics = tmp_path / "metrics.csv"
    assert len(metrics.read_text().splitlines()) == 301
    reopen(tmp_path, 3000, 10)
    (loss,) = (curve for curve in read_curves(metrics) if curve.name == "train/loss")
    assert (loss.steps[-1], loss.values[-1]) == (2000, 0.5)
    report(tmp_path, 3000, 10)
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_files_table() -> None:
    *_, last = files_table({"report.html": Done(1.5, 2_500_000, 100.2, 40.0)}).splitlines()
    assert [cell.strip() for cell in last.strip("|").split("|")] == [
        "report.html", "1.50", "2.50", "100", "40",
    ]  # fmt: skip


def test_slope__leaves_the_start_out() -> None:
    uses = [Use(0, 900, 0, 0), *(Use(step, 100 + step / 500, 0, 7) for step in range(500, 5000, 9))]
    assert slope(uses, "rss_mib", 0.1) == pytest.approx(2)
    assert slope(uses, "num_files", 0.1) == pytest.approx(0)
    *_, last = processes_table({"main": uses}).splitlines()
    assert last.split("|")[3].strip() == "+2.00"


def test_look__sees_a_process_and_its_children() -> None:
    before = look(os.getpid(), 3)
    child = subprocess.Popen(
        [sys.executable, "-c", "input(open('/dev/null').name)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        child.stdout.read(1)
        after = look(os.getpid(), 3)
    finally:
        child.communicate()
    assert before["main"].rss_mib > 10
    assert before["main"].step == 3
    assert after["workers"].num_files >= before.get("workers", Use(0, 0, 0, 0)).num_files + 3


@pytest.mark.slow
def test_main__small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--steps", "2000", "--every", "10", "--json", str(tmp_path / "numbers.json")])
    printed = capsys.readouterr().out
    assert all(name in printed for name in ACTS)


@pytest.mark.slow
def test_watch__a_real_run(tmp_path: Path) -> None:
    seen = watch(tmp_path, 150, 0.2, ["logger=csv", "data.prepare.num_train=80"])
    assert seen["main"][-1].step > 10
    assert max(use.pss_mib for use in seen["workers"]) > 1
    assert max(use.num_files for use in seen["main"]) > 10

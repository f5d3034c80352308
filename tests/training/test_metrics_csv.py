import math
import os
from pathlib import Path

import pytest

from ssl_swin.training import metrics_csv
from ssl_swin.training.metrics_csv import MetricsCsv


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "metrics.csv"


def test_metrics_csv__one_row_per_step_and_all_columns(path):
    logger = MetricsCsv(path, resume=True)
    logger.log_metrics({"train/loss": 0.5, "epoch": 0.0}, step=9)
    logger.log_metrics({"perf/samples_per_s": 1234.5678901}, step=9)
    logger.log_metrics({"val/loss": 1e-9, "epoch": 1.0}, step=19)
    logger.log_metrics({"probe/top1": 25}, step=0)
    logger.log_metrics({"train/loss": 0.25}, step=9)  # the last word counts
    logger.log_metrics({"probe/top5": 50}, step=None)
    logger.finalize("success")
    assert path.read_text().splitlines() == [
        "step,epoch,perf/samples_per_s,probe/top1,probe/top5,train/loss,val/loss",
        "0,,,25,50,,",
        "9,0,1234.568,,,0.25,",
        "19,1,,,,,1e-09",
    ]


def test_metrics_csv__continues_its_file(path):
    first = MetricsCsv(path, resume=True)
    for step in (0, 10, 20, 30):
        first.log_metrics({"train/loss": step / 3, "epoch": step // 20}, step)
    first.finalize("failed")
    written = path.read_text()

    second = MetricsCsv(path, resume=True)
    second.finalize("success")
    assert path.read_text() == written  # digits survive being read

    second.forget_after(20)
    second.log_metrics({"val/loss": 2.0}, 21)
    second.finalize("success")
    assert path.read_text().splitlines() == [
        "step,epoch,train/loss,val/loss",
        "0,0,0,",
        "10,0,3.333333,",
        "20,1,6.666667,",
        "21,,,2",
    ]


def test_metrics_csv__starts_anew_where_nothing_is_resumed(path):
    for resume, steps in ((False, [0]), (False, [1]), (True, [1, 2])):
        logger = MetricsCsv(path, resume=resume)
        logger.log_metrics({"a": 1}, steps[-1])
        logger.finalize("success")
        assert [line.partition(",")[0] for line in path.read_text().splitlines()[1:]] == [
            str(step) for step in steps
        ]


def test_metrics_csv__values_that_are_not_finite(path):
    logger = MetricsCsv(path, resume=True)
    logger.log_metrics({"a": math.nan, "b": math.inf, "c": 1.0}, 3)
    logger.finalize("failed")
    assert path.read_text().splitlines()[1] == "3,,nan,inf,1"
    assert MetricsCsv(path, resume=True).rows == {3: {"b": math.inf, "c": 1.0}}


def test_metrics_csv__writes_nothing_without_metrics(path):
    logger = MetricsCsv(path, resume=True)
    logger.log_hyperparams({"lr": 1})
    logger.save()
    logger.finalize("success")
    assert not path.exists()


def test_metrics_csv__failure_leaves_the_old_file(path, monkeypatch):
    logger = MetricsCsv(path, resume=True)
    logger.log_metrics({"a": 1}, 0)
    logger.finalize("success")
    written = path.read_text()
    logger.log_metrics({"a": 2}, 1)

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        logger.finalize("success")
    assert path.read_text() == written
    assert [entry.name for entry in path.parent.iterdir()] == ["metrics.csv"]


class Clock:
    """Time that passes only when told to, and by `write_s` in every write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, write_s: float) -> None:
        self.now_s = 1000.0
        self.writes: list[float] = []

        def write(path: Path, content: str) -> None:
            self.writes.append(self.now_s)
            self.now_s += write_s

        monkeypatch.setattr(metrics_csv.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(metrics_csv, "write_atomically", write)


@pytest.mark.parametrize(("write_s", "pause_s"), [(0.001, 5.0), (0.2, 20.0)])
def test_save__takes_one_percent_of_a_run_at_most(path, monkeypatch, write_s, pause_s):
    clock = Clock(monkeypatch, write_s)
    logger = MetricsCsv(path, resume=True)
    logger.log_metrics({"a": 1}, 0)
    for wait_s in (0.0, pause_s - write_s - 0.01, 0.02, 0.0):
        clock.now_s += wait_s
        logger.save()
    assert clock.writes == pytest.approx([1000.0, 1000.0 + pause_s + 0.01])
    logger.flush()  # with a checkpoint
    logger.finalize("success")
    assert len(clock.writes) == 4

"""The newest values of a metrics.csv."""

from pathlib import Path

import pytest

from ssl_swin.runs.last_values import last_values

TABLE = """step,samples_seen,train/loss,val/loss,val/psnr,test/top1
10,80,0.5,,,
20,160,0.4,0.7,12.5,
30,240,0.3,,,
40,320,,0.6,,
50,4"""


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("train/loss", "val/loss"), {"train/loss": 0.3, "val/loss": 0.6}),
        (("val/psnr", "test/top1", "none"), {"val/psnr": 12.5}),
        ((), {}),
    ],
)
def test_last_values__of_whole_lines(tmp_path: Path, names: tuple, values: dict) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(TABLE)
    assert last_values(metrics, names.__contains__) == values


@pytest.mark.parametrize("text", [None, "", "step", "step,train/loss\n"])
def test_last_values__of_nothing(tmp_path: Path, text: str | None) -> None:
    metrics = tmp_path / "metrics.csv"
    if text is not None:
        metrics.write_text(text)
    assert last_values(metrics, lambda name: True) == {}

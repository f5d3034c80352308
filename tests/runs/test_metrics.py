import math
import re
from pathlib import Path

import pytest

from ssl_swin.runs.metrics import METRICS, declared, improved

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "unit", "better"),
    [
        ("val/loss", "", "lower"),
        ("val/loss_best", "", "lower"),
        ("val/loss_vs_mean", "ratio", "lower"),
        ("test/top1_at_224x192px", "ratio", "higher"),
        ("probe/knn_top1/stage3", "%", "higher"),
        ("probe/val/linear_top1/mean", "%", "higher"),
        ("perf/samples_per_s", "images/s", "higher"),
    ],
)
def test_declared(name: str, unit: str, better: str) -> None:
    metric = declared(name)
    assert metric is not None
    assert (metric.unit, metric.better, metric.group) == (unit, better, name.split("/")[0])


@pytest.mark.parametrize("name", ["loss", "val/iou", "train/loss/part", "epoch"])
def test_declared__others_are_not(name: str) -> None:
    assert declared(name) is None


def test_declared__is_every_metric_that_training_logs_by_name() -> None:
    sources = (ROOT / "ssl_swin/training").rglob("*.py")
    text = "\n".join(path.read_text() for path in sources)
    logged = re.findall(r'\.log(?:_metrics)?\(\s*\{?f?"([^"]+)"', text)
    names = [re.sub(r"\{.*?\}", "1", name) for name in logged if not re.match(r"\w+/\{|\{", name)]
    assert len(names) >= 10
    assert [name for name in names if declared(name) is None] == []


def test_metrics__are_told_apart() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(declared(metric.name) is metric for metric in METRICS)


def test_improved__by_direction_on_held_out_images_alone() -> None:
    best = {"val/loss": 1.0, "val/top1": 0.5, "probe/knn_top1/stage1": 20.0}
    worse = {"val/loss": 1.0, "val/top1": 0.4, "probe/knn_top1/stage1": math.nan}
    assert improved(best, worse) == {}
    better = {"val/loss": 0.9, "val/top1": 0.6, "probe/knn_top1/stage2": 1.0}
    others = {"train/loss": 0.0, "val/iou": 1.0, "optim/lr": 1.0, "val/loss_vs_mean": math.inf}
    assert improved(best, better | others) == better


def test_metrics__are_listed_in_the_docs() -> None:
    rows = [f"| `{m.name}` | {m.meaning} | {m.unit} | {m.better} |" for m in METRICS]
    assert "\n".join(rows) in (ROOT / "docs/DASHBOARDS.md").read_text(), "\n".join(rows)

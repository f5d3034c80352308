from pathlib import Path

import pytest

from ssl_swin.reporting.curves import group_curves, read_curves
from ssl_swin.reporting.thinning import MOST_POINTS, Curve


def metrics_csv(folder: Path, text: str) -> Path:
    path = folder / "metrics.csv"
    path.write_text(text)
    return path


def test_read_curves__empty_cells_are_skipped(tmp_path):
    path = metrics_csv(
        tmp_path, "step,epoch,train/loss,val/loss\n10,0,0.5,\n20,0,0.25,0.75\n30,1,,0.5\n"
    )
    assert read_curves(path) == [
        Curve("train/loss", [10, 20], [0.5, 0.25]),
        Curve("val/loss", [20, 30], [0.75, 0.5]),
    ]


def test_read_curves__values_that_are_not_finite_are_left_out_and_counted(tmp_path):
    path = metrics_csv(tmp_path, "step,loss,other\n1,2.0,nan\n2,nan,inf\n3,-inf,nan\n4,1.0,nan\n")
    assert read_curves(path) == [Curve("loss", [1, 4], [2.0, 1.0], num_nonfinite=2)]


def test_read_curves__a_resumed_run_logs_a_step_again(tmp_path):
    path = metrics_csv(tmp_path, "step,loss\n1,5\n2,4\n3,9\n2,3\n3,nan\n4,2\n")
    assert read_curves(path) == [Curve("loss", [1, 2, 4], [5.0, 3.0, 2.0], num_nonfinite=1)]


def test_read_curves__damaged_rows_are_skipped(tmp_path):
    path = metrics_csv(tmp_path, "step,loss,lr\n,1,1\nx,1,1\n1,2,3,4,5\n2,word,3\n\n3")
    assert read_curves(path) == [Curve("loss", [1], [2.0]), Curve("lr", [1, 2], [3.0, 3.0])]


def test_read_curves__nothing_logged(tmp_path):
    assert read_curves(metrics_csv(tmp_path, "")) == []
    assert read_curves(metrics_csv(tmp_path, "step,epoch,train/loss\n")) == []
    assert read_curves(metrics_csv(tmp_path, "epoch,train/loss\n0,1.0\n")) == []


@pytest.mark.parametrize("count", [MOST_POINTS + 1, 3 * MOST_POINTS, 50_001])
def test_read_curves__a_long_one_is_thinned_between_its_lowest_and_highest(tmp_path, count):
    lines = "".join(f"{step},{step % 10},{100 + step}\n" for step in range(count))
    path = metrics_csv(tmp_path, f"step,saw,ramp\n{lines}")
    saw, ramp = read_curves(path)
    for curve in (saw, ramp):
        assert MOST_POINTS / 2 <= len(curve.steps) <= MOST_POINTS + 1
        assert curve.steps == sorted(set(curve.steps))
        assert curve.steps[-1] == count - 1
    assert saw.values[-1] == (count - 1) % 10  # as logged
    assert ramp.values[-1] == 99 + count
    assert (min(saw.lows), max(saw.highs)) == (0, 9)
    size = -(-count // len(ramp.steps))
    for step, value, low, high in zip(ramp.steps, ramp.values, ramp.lows, ramp.highs, strict=True):
        assert low <= value <= high
        assert abs(value - 100 - step) <= 1
        assert high - low <= 2 * size


def test_read_curves__by_block_and_by_row_are_alike(tmp_path):
    """A block with a damaged line is read row by row."""
    rows = [
        f"{step},{step % 7 or ''},{'nan' if step % 11 == 0 else step / 4}" for step in range(999)
    ]
    whole = metrics_csv(tmp_path, "\n".join(["step,a,b", *rows, ""]))
    expected = read_curves(whole)
    assert [curve.name for curve in expected] == ["a", "b"]
    assert expected[1].num_nonfinite == 91
    damaged = metrics_csv(tmp_path, "\n".join(["step,a,b", *rows, "x,y,z", ""]))
    assert read_curves(damaged) == expected


def test_read_curves__blocks_join(tmp_path, monkeypatch):
    rows = [f"{step},{step % 5 or ''},{step / 4}" for step in range(50)]
    path = metrics_csv(tmp_path, "\n".join(["step,a,b", *rows[:30], "12,1,1", *rows[20:], ""]))
    expected = read_curves(path)
    assert expected[1].steps == [*range(13), *range(20, 50)]
    monkeypatch.setattr("ssl_swin.runs.metrics_blocks.BLOCK_BYTES", 32)
    assert read_curves(path) == expected


def test_group_curves__by_quantity_and_the_loss_first():
    names = [
        "optim/lr",
        "optim/grad_norm",
        "train/loss",
        "train/acc1",
        "val/loss",
        "val/loss_by_channel/0",
        "val/loss_by_channel/1",
        "probe/knn_top1/stage1",
        "probe/knn_top1/stage2",
        "probe/top1",
        "lr/head",
        "lr/body",
        "lr",
    ]
    groups = group_curves(Curve(name, [0], [0.0]) for name in names)
    assert [(title, [curve.name for curve in curves]) for title, curves in groups.items()] == [
        ("loss", ["train/loss", "val/loss"]),
        ("optim/lr", ["optim/lr"]),
        ("optim/grad_norm", ["optim/grad_norm"]),
        ("acc1", ["train/acc1"]),
        ("loss_by_channel", ["val/loss_by_channel/0", "val/loss_by_channel/1"]),
        ("probe/knn_top1", ["probe/knn_top1/stage1", "probe/knn_top1/stage2"]),
        ("probe", ["probe/top1"]),
        ("lr", ["lr/head", "lr/body", "lr"]),
    ]

from pathlib import Path

import pytest

from benchmarks.features.curves import Arm, draw, mean_curve, parse_arm
from ssl_swin.errors import UserError


def run_with(folder: Path, rows: dict[int, float]) -> Path:
    folder.mkdir()
    lines = [f"{step},{value}" for step, value in rows.items()]
    (folder / "metrics.csv").write_text("\n".join(["step,top1", *lines]) + "\n")
    return folder


def test_mean_curve__means_of_what_all_runs_reached_over_seconds(tmp_path):
    runs = run_with(tmp_path / "a", {0: 10, 4: 20, 8: 40}), run_with(tmp_path / "b", {0: 30, 4: 50})
    curve = mean_curve(Arm("both", 0.5, runs), "top1")
    assert (curve.steps, curve.values) == ([0, 2], [20, 35])


def test_draw__is_one_svg_file_with_every_name(tmp_path):
    arms = [Arm(name, 1.0, (run_with(tmp_path / name, {0: 1, 9: 2}),)) for name in ("p", "q")]
    picture = draw([mean_curve(arm, "top1") for arm in arms], "top1")
    assert picture.startswith("<svg") and picture.rstrip().endswith("</svg>")
    assert picture.count("<svg") == 1
    assert ">p</text>" in picture and ">q</text>" in picture


def test_parse_arm():
    assert parse_arm("x=0.5:a,b") == Arm("x", 0.5, (Path("a"), Path("b")))
    with pytest.raises(UserError, match="NAME=SECONDS:RUN,RUN, got 'x=a'"):
        parse_arm("x=a")


def test_mean_curve__a_metric_that_was_not_logged(tmp_path):
    with pytest.raises(UserError, match="has not logged loss; it has top1"):
        mean_curve(Arm("x", 1.0, (run_with(tmp_path / "a", {0: 1}),)), "loss")

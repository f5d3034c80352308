import numpy as np
import pytest
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.reporting.sweep_axes import axis_of
from ssl_swin.reporting.sweep_figure import (
    DOT_COLOUR,
    HEADER_PX,
    PANEL_PX,
    Job,
    draw_sweep,
)
from ssl_swin.reporting.sweep_grid import BEST_COLOUR, CELL_PX
from ssl_swin.runs.sweep_table import record_job


def places(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero((np.array(picture) == colour).all(axis=-1))
    return rows, columns


def test_axis_of__numbers_words_and_logs():
    linear = axis_of(["3", "1", "2"])
    assert linear.texts == ("1", "2", "3")
    assert not linear.is_log
    assert linear.place("2") == pytest.approx(0.5)
    log = axis_of(["1e-4", "1e-2", "1e-3"])
    assert log.is_log
    assert log.place("0.001") == pytest.approx(0.5)
    words = axis_of(["b", None, "a", "b"])
    assert words.texts == ("-", "a", "b")
    assert words.place("b") == pytest.approx(5 / 6)
    assert axis_of(["7", "7.0"]).place("7") == 0.5


@pytest.mark.parametrize(("metric", "is_left"), [("val/loss", True), ("val/top1", False)])
def test_draw_sweep__one_setting_marks_the_best(metric, is_left):
    jobs = [Job({"lr": "1"}, 0.1), Job({"lr": "2"}, 0.2), Job({"lr": "3"}, None)]
    picture = draw_sweep(metric, jobs)
    best, other = places(picture, BEST_COLOUR), places(picture, DOT_COLOUR)
    assert (best[1].mean() < other[1].mean()) == is_left
    assert (best[0].mean() > other[0].mean()) == is_left  # low values lie lower


def test_draw_sweep__two_settings_in_all_combinations_are_a_grid():
    values = {("a", "1"): 3.0, ("a", "2"): 1.0, ("b", "1"): 2.0, ("b", "2"): None}
    jobs = [Job({"m": m, "n": n}, value) for (m, n), value in values.items()]
    rows, columns = places(draw_sweep("val/loss", jobs), BEST_COLOUR)
    assert np.ptp(rows) + 1 == CELL_PX[1] - 1  # one frame
    assert np.ptp(columns) + 1 == CELL_PX[0] - 1
    top, left = HEADER_PX + 52, 14
    assert top <= rows.min() < top + CELL_PX[1]
    assert columns.min() > left + CELL_PX[0]


def test_draw_sweep__many_settings_are_panels():
    jobs = [Job({f"k{i}": str((n * 7 + i) % 5) for i in range(20)}, n / 10) for n in range(9)]
    assert draw_sweep("val/loss", jobs).size == (3 * PANEL_PX[0], 4 * PANEL_PX[1] + HEADER_PX)
    assert draw_sweep("x", [Job({}, None)]).height == PANEL_PX[1] + HEADER_PX  # nothing yet


def test_sweep_table__draws(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    record_job(tmp_path / "a", settings={"s": "0"}, metric="val/loss", value=1.0, status="finished")
    assert main(["sweep-table", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(f"figure     {tmp_path}/sweep.png\n")
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.format == "PNG"

"""Grids of accuracies: the best cell, the table, the picture."""

import numpy as np

from ssl_swin.probing.features import Tap
from ssl_swin.probing.score_grid import Choice, ScoreGrid
from ssl_swin.reporting.drawing import heat
from ssl_swin.reporting.score_grid_figure import CELL_PX, draw_score_grids

GRID = ScoreGrid(
    "linear",
    "base_lr",
    {Tap(1, "mean"): {0.1: 20.0, 1.0: 50.0}, Tap(4, "max"): {0.1: 30.0, 1.0: 50.0}},
)


def test_score_grid__best_is_the_first_of_equals() -> None:
    assert GRID.best == Choice(Tap(1, "mean"), 1.0, 50.0)
    assert GRID.best_of(Tap(4, "max")) == Choice(Tap(4, "max"), 1.0, 50.0)
    assert GRID.settings == [0.1, 1.0]


def test_score_grid__as_table() -> None:
    assert GRID.lines() == [
        "linear top-1 on val, percent, by base_lr",
        "                      0.1        1",
        "  stage 1  mean     20.00    50.00*",
        "  stage 4  max      30.00    50.00 ",
    ]


def test_score_grid__as_data() -> None:
    assert GRID.as_data()[2] == {
        "stage": 4,
        "pooling": "max",
        "base_lr": 0.1,
        "val_top1_percent": 30.0,
    }
    assert len(GRID.as_data()) == 4


def test_draw_score_grids__colours_run_from_lowest_to_highest() -> None:
    other = ScoreGrid("knn", "k", {Tap(1, "mean"): {5: 7.0}})
    pixels = np.asarray(draw_score_grids([GRID, other]))
    middle = heat(np.array((30 - 20) / (50 - 20)))
    counts = {
        name: int((pixels == colour).all(axis=2).sum())
        for name, colour in {"third": middle, "full": heat(np.array(1.0))}.items()
    }
    cell = (CELL_PX[0] - 1) * (CELL_PX[1] - 1)
    assert 0.5 * cell < counts["third"] < cell  # one cell, less its number
    assert cell < counts["full"] < 2 * cell  # two cells, less numbers and frame
    assert (pixels == (226, 94, 32)).all(axis=2).sum() > 2 * 3 * sum(CELL_PX)  # the best, twice

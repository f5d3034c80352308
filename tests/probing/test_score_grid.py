"""Grids of accuracies: the best cell, the table, the picture."""

import numpy as np
import pytest

from ssl_swin.probing.features import Tap
from ssl_swin.probing.score_grid import Choice, ScoreGrid
from ssl_swin.probing.scoring import standard_error
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


@pytest.mark.parametrize(
    ("tolerance", "simplest", "chosen"),
    [
        (0.0, "lowest", 1.0),
        (1.9, "lowest", 0.3),
        (2.0, "lowest", 0.1),
        (60.0, "lowest", 0.01),
        (2.0, "highest", 3.0),
        (1.0, "highest", 1.0),
    ],
)
def test_score_grid__chosen_is_the_simplest_of_its_row_within_tolerance(
    tolerance: float, simplest: str, chosen: float
) -> None:
    row = {0.01: 10.0, 0.1: 48.0, 0.3: 49.0, 1.0: 50.0, 3.0: 48.5}
    other = {0.01: 49.9, 0.1: 1.0, 0.3: 1.0, 1.0: 1.0, 3.0: 49.9}
    grid = ScoreGrid(
        "linear",
        "base_lr",
        {Tap(1, "max"): other, Tap(1, "mean"): row},
        tolerance_percent=tolerance,
        simplest=simplest,  # type: ignore[arg-type]
    )
    assert grid.chosen == Choice(Tap(1, "mean"), chosen, row[chosen])
    assert grid.best == Choice(Tap(1, "mean"), 1.0, 50.0)
    star = next(line for line in grid.lines() if "*" in line)
    assert f"{row[chosen]:.2f}*" in star and "mean" in star


def test_standard_error__by_hand() -> None:
    assert standard_error(50.0, 25) == 10
    assert standard_error(20.0, 400) == pytest.approx(2)
    assert standard_error(0.0, 7) == standard_error(100.0, 7) == 0


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

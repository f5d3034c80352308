"""The grid of the surest mistakes."""

import numpy as np
import torch

from ssl_swin.reporting.mistakes_figure import Mistake, draw_mistakes, surest
from ssl_swin.reporting.tiles import GAP_PX, TEXT_PX, TILE_PX


def mistake(confidence: float, name: str = "a", level: float = 0.0, size=(20, 20), bands: int = 3):
    return Mistake(confidence, name, 0, 1, torch.full((bands, *size), level))


def test_surest__the_highest_confidence_then_the_name() -> None:
    mistakes = [mistake(0.5, "c"), mistake(0.9, "b"), mistake(0.5, "a"), mistake(0.1, "d")]
    assert [each.name for each in surest(mistakes, 3)] == ["b", "a", "c"]
    assert surest(mistakes[::-1], 3) == surest(mistakes, 3)


def test_draw_mistakes__tiles_in_rows_with_the_image_as_it_is() -> None:
    levels = [0.12 * number for number in range(7)]  # normalised by mean 0.2 and deviation 0.5
    drawn = draw_mistakes(
        [mistake(0.9, level=level) for level in levels], ["x", "y"], [0.2] * 3, [0.5] * 3
    )
    wide, high = TILE_PX + GAP_PX, TILE_PX + TEXT_PX + GAP_PX
    assert drawn.size == (6 * wide + GAP_PX, 2 * high + GAP_PX)
    pixels = np.asarray(drawn)
    for number, level in enumerate(levels):
        row, column = divmod(number, 6)
        centre = pixels[GAP_PX + row * high + TILE_PX // 2, GAP_PX + column * wide + TILE_PX // 2]
        assert centre.tolist() == [round(255 * (0.5 * level + 0.2))] * 3


def test_draw_mistakes__keeps_proportions_and_draws_one_band_grey() -> None:
    drawn = draw_mistakes(
        [mistake(1.0, level=1.0, size=(10, 40), bands=1)], ["x", "y"], [0.0], [0.5]
    )
    tile = np.asarray(drawn)[GAP_PX : GAP_PX + TILE_PX, GAP_PX : GAP_PX + TILE_PX]
    rows = np.flatnonzero((tile == 128).all(axis=(1, 2)))
    assert len(rows) == TILE_PX // 4 and rows[0] == (TILE_PX - TILE_PX // 4) // 2


def test_draw_mistakes__names_of_any_length_and_lines_stay_in_their_tile() -> None:
    classes = ["long " * 50, "two\nlines"]
    drawn = draw_mistakes([mistake(1.0, "n" * 300)], classes, [0.0] * 3, [1.0] * 3)
    right = np.asarray(drawn)[:, GAP_PX + TILE_PX + 2 :]
    assert (right == 255).all()
    assert (np.asarray(drawn)[GAP_PX + TILE_PX :] != 255).any()

"""Grids of accuracies as a picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ssl_swin.probing.score_grid import ScoreGrid
from ssl_swin.reporting.drawing import PAPER, font, heat, ink_on, widest, write

CELL_PX = (66, 28)
MARGIN_PX = 18
TITLE_PX = 52  # above the cells of a grid: its title and its columns
_CHOSEN_COLOUR = (226, 94, 32)


def draw_score_grids(grids: Sequence[ScoreGrid]) -> Image.Image:
    """Draws grids below each other: a cell per setting, darker for better, the chosen one framed.

    Within a grid the colours run from its lowest to its highest accuracy.
    """
    labels = [_row_labels(grid) for grid in grids]
    left = MARGIN_PX + widest([text for texts in labels for text in texts], font(14)) + 12
    width = max(left + len(grid.settings) * CELL_PX[0] for grid in grids)
    titles = widest([_title(grid) for grid in grids], font(15)) + MARGIN_PX
    heights = [TITLE_PX + len(texts) * CELL_PX[1] + MARGIN_PX for texts in labels]
    picture = Image.new("RGB", (max(width, titles) + MARGIN_PX, sum(heights) + MARGIN_PX), PAPER)
    top = MARGIN_PX
    for grid, height in zip(grids, heights, strict=True):
        _draw_grid(ImageDraw.Draw(picture), grid, left, top)
        top += height
    return picture


def _draw_grid(draw: ImageDraw.ImageDraw, grid: ScoreGrid, left: int, top: int) -> None:
    write(draw, (MARGIN_PX, top + 8), _title(grid), font(15))
    for column, setting in enumerate(grid.settings):
        x = left + (column + 0.5) * CELL_PX[0]
        write(draw, (x, top + 38), f"{setting:g}", font(14), anchor="mm")
    values = np.array([list(row.values()) for row in grid.top1_percent.values()])
    span = float(np.ptp(values)) or 1.0
    levels = (values - values.min()) / span
    chosen = grid.chosen
    for row, (tap, label) in enumerate(zip(grid.top1_percent, _row_labels(grid), strict=True)):
        y = top + TITLE_PX + row * CELL_PX[1]
        write(draw, (MARGIN_PX, y + CELL_PX[1] / 2), label, font(14))
        for column, setting in enumerate(grid.settings):
            x, level = left + column * CELL_PX[0], float(levels[row, column])
            box = (x, y, x + CELL_PX[0] - 2, y + CELL_PX[1] - 2)
            is_chosen = (tap, setting) == chosen[:2]
            colour = tuple(heat(np.array(level)).tolist())
            outline, width = (_CHOSEN_COLOUR, 3) if is_chosen else (None, 0)
            draw.rectangle(box, colour, outline, width)
            centre = (x + CELL_PX[0] / 2 - 1, y + CELL_PX[1] / 2 - 1)
            text = f"{values[row, column]:.2f}"
            write(draw, centre, text, font(14), anchor="mm", fill=ink_on(level))


def _title(grid: ScoreGrid) -> str:
    return f"{grid.method}: top-1 on val in percent, by {grid.setting}"


def _row_labels(grid: ScoreGrid) -> list[str]:
    return [f"stage {tap.stage}, {tap.pooling}" for tap in grid.top1_percent]

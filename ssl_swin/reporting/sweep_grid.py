"""Two settings in all their combinations, as a grid of results."""

from collections.abc import Mapping, Set
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ssl_swin.reporting.drawing import FAINT, PAPER, font, heat, ink_on, shortened, widest, write

CELL_PX = (84, 34)
MARGIN_PX, COLUMNS_PX, MOST_LABEL_PX = 14, 52, 200
BEST_COLOUR = (226, 94, 32)


class Cells(NamedTuple):
    """The mean result of each combination of two settings."""

    down_key: str
    across_key: str
    down: tuple[str, ...]
    across: tuple[str, ...]
    means: Mapping[tuple[str, str], float]  # of the jobs with a result, by the two values
    tried: Set[tuple[str, str]]


def draw_cells(cells: Cells, sign: int) -> Image.Image:
    """Draw a cell per combination, darker for better, the best one framed.

    Args:
        cells: The results.
        sign: 1 where the lowest is the best, -1 where the highest is.
    """
    used = font(13)
    label = min(MOST_LABEL_PX, widest([cells.down_key, *cells.down], used))
    left, top = MARGIN_PX + label + 10, COLUMNS_PX
    size = (
        left + len(cells.across) * CELL_PX[0] + MARGIN_PX,
        top + len(cells.down) * CELL_PX[1] + MARGIN_PX,
    )
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    width = len(cells.across) * CELL_PX[0]
    write(draw, (left, 10), shortened(cells.across_key, used, width), used)
    write(draw, (MARGIN_PX, 36), shortened(cells.down_key, used, label), used)
    for at, text in enumerate(cells.across):
        above = (left + (at + 0.5) * CELL_PX[0], 36)
        write(draw, above, shortened(text, used, CELL_PX[0] - 6), used, anchor="mm")
    for at, text in enumerate(cells.down):
        place = (MARGIN_PX, top + (at + 0.5) * CELL_PX[1])
        write(draw, place, shortened(text, used, label), used)
    _draw_results(draw, cells, sign, (left, top))
    return picture


def _draw_results(
    draw: ImageDraw.ImageDraw, cells: Cells, sign: int, corner: tuple[int, int]
) -> None:
    scores = {place: -sign * mean for place, mean in cells.means.items()}
    lowest, highest = min(scores.values(), default=0), max(scores.values(), default=0)
    best = max(scores, key=lambda place: scores[place]) if scores else None
    for row, down in enumerate(cells.down):
        for column, across in enumerate(cells.across):
            x, y = corner[0] + column * CELL_PX[0], corner[1] + row * CELL_PX[1]
            box = (x, y, x + CELL_PX[0] - 2, y + CELL_PX[1] - 2)
            centre = (x + CELL_PX[0] / 2 - 1, y + CELL_PX[1] / 2 - 1)
            place = (down, across)
            if place not in cells.means:
                draw.rectangle(box, outline=FAINT)
                word = "no result" if place in cells.tried else "not run"
                write(draw, centre, word, font(12), anchor="mm", fill=FAINT)
                continue
            level = (scores[place] - lowest) / ((highest - lowest) or 1.0)
            colour = tuple(heat(np.array(level)).tolist())
            framed = place == best
            draw.rectangle(box, colour, BEST_COLOUR if framed else FAINT, 3 if framed else 1)
            text = f"{cells.means[place]:.4g}"
            write(draw, centre, text, font(13), anchor="mm", fill=ink_on(level))

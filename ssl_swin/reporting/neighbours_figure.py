"""Queries with their nearest images, a row each."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_swin.reporting.drawing import FAINT, INK
from ssl_swin.reporting.tiles import RIGHT, WRONG, Line, Tile, draw_tiles


class Shown(NamedTuple):
    """An image, what it is called, and its class, "" for none."""

    pixels: NDArray[np.uint8]  # (H, W, 3)
    name: str
    label: str


class Answer(NamedTuple):
    """A query, and its nearest images with their cosines."""

    query: Shown
    nearest: list[tuple[Shown, float]]


def draw_neighbours(answers: Sequence[Answer]) -> Image.Image:
    """Draw each query, framed, and its nearest; classes are green where they are the query's.

    Args:
        answers: At least one.
    """
    return draw_tiles([_row(answer) for answer in answers])


def _row(answer: Answer) -> list[Tile]:
    query = answer.query
    about = Line("query"), Line(query.label), Line(query.name, FAINT, 11)
    row = [Tile(query.pixels, tuple(line for line in about if line.text), INK)]
    for shown, cosine in answer.nearest:
        lines = [Line(f"{cosine:.3f}")]
        if shown.label:
            known = INK if not query.label else RIGHT if shown.label == query.label else WRONG
            lines.append(Line(shown.label, known))
        row.append(Tile(shown.pixels, (*lines, Line(shown.name, FAINT, 11))))
    return row

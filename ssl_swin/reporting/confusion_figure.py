"""A confusion matrix as a picture, from a handful of classes to thousands.

Up to about 60 classes have their names on both sides and up to about 30 their numbers in the cells;
beyond, the axes are numbered, and from 200 on a cell stands for several neighbouring classes.
Beside the rows stand the accuracies, then the worst in words.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ssl_swin.reporting.chart import nice_ticks
from ssl_swin.reporting.drawing import (
    FAINT,
    PAPER,
    Font,
    font,
    heat,
    ink_on,
    shortened,
    widest,
    write,
)

SIDE_PX = 800  # of the matrix, where its classes fill it
LARGEST_CELL_PX = 46
MOST_CELLS = 200  # in a row; single pixels would not be seen
NAMED_CELL_PX, NUMBERED_CELL_PX = 12, 26  # from which cells are named, and hold a number
NAME_PX, BARS_PX, LIST_PX = 130, 110, 360
GAP_PX, LINE_PX, HEADER_PX = 16, 20, 44
LIST_LENGTH = 10
_BAR = (42, 112, 178)
_BAR_GROUND = (236, 239, 243)


class _Frame(NamedTuple):
    """Where the matrix lies in the picture."""

    left: int
    top: int
    cell: int
    num_cells: int

    def middle(self, index: float) -> float:
        """From the matrix's edge to the middle of a cell."""
        return (index + 0.5) * self.cell

    @property
    def side(self) -> int:
        return self.num_cells * self.cell

    @property
    def bars(self) -> int:
        return self.left + self.side + GAP_PX

    @property
    def lists(self) -> int:
        return self.bars + BARS_PX + 3 * GAP_PX


def draw_confusion(
    matrix: NDArray[np.int64], classes: Sequence[str], accuracy: NDArray[np.float64]
) -> Image.Image:
    """Draws the matrix in shares of each true class, with the accuracies and the worst confusions.

    A cell's colour is the square root of its share, so that a few percent can be seen.

    Args:
        matrix: Counts (K, K), true classes down, predicted ones across.
        classes: K names.
        accuracy: Per class in percent, NaN where there are no images.
    """
    group = math.ceil(len(classes) / MOST_CELLS)
    counts = _grouped(_grouped(matrix, group).T, group).T
    frame = _frame(len(counts))
    height = max(frame.top + frame.side, frame.top + (2 * LIST_LENGTH + 4) * LINE_PX) + 2 * GAP_PX
    picture = Image.new("RGB", (frame.lists + LIST_PX + GAP_PX, height), PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_header(draw, matrix, group)
    _draw_cells(picture, frame, counts)
    _draw_axes(picture, frame, classes, group)
    known = np.isfinite(accuracy)
    totals = _grouped(np.where(known, accuracy, 0.0), group)
    _draw_bars(draw, frame, totals, _grouped(known, group))
    below = _draw_list(draw, (frame.lists, frame.top), "most confused", _pairs(matrix, classes))
    lowest = _lowest(accuracy, classes)
    _draw_list(draw, (frame.lists, below + LINE_PX), "lowest accuracy", lowest)
    return picture


def _grouped(rows: NDArray[Any], group: int) -> NDArray[Any]:
    """Adds up each `group` neighbouring rows; the last sum may be of fewer."""
    sums: NDArray[Any] = np.add.reduceat(rows, np.arange(0, len(rows), group), axis=0, dtype=float)
    return sums


def _frame(num_cells: int) -> _Frame:
    cell = min(LARGEST_CELL_PX, SIDE_PX // num_cells)
    labels = NAME_PX if cell >= NAMED_CELL_PX else 3 * GAP_PX
    return _Frame(GAP_PX + labels, HEADER_PX + labels, cell, num_cells)


def _draw_header(draw: ImageDraw.ImageDraw, matrix: NDArray[np.int64], group: int) -> None:
    images = int(matrix.sum())
    top1 = 100 * matrix.trace() / max(images, 1)
    text = f"{top1:.2f} % right of {images:,} images in {len(matrix):,} classes"
    write(draw, (GAP_PX, 16), text, font(18))
    legend = "rows: true class; columns: predicted; colour: share of the true class"
    if group > 1:
        legend += f"; a cell stands for {group} neighbouring classes"
    write(draw, (GAP_PX, 38), legend, font(13), fill=FAINT)


def _draw_cells(picture: Image.Image, frame: _Frame, counts: NDArray[np.float64]) -> None:
    levels = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    cells = Image.fromarray(heat(levels))
    size = (frame.side, frame.side)
    picture.paste(cells.resize(size, Image.Resampling.NEAREST), (frame.left, frame.top))
    draw = ImageDraw.Draw(picture)
    box = (frame.left - 1, frame.top - 1, frame.left + frame.side, frame.top + frame.side)
    draw.rectangle(box, outline=FAINT)
    if frame.cell < NUMBERED_CELL_PX:
        return
    for row, column in zip(*np.nonzero(counts), strict=True):
        text = f"{counts[row, column]:.0f}"
        used = font(min(13.0, 1.6 * frame.cell / len(text)))
        place = (frame.left + frame.middle(column), frame.top + frame.middle(row))
        write(draw, place, text, used, anchor="mm", fill=ink_on(float(levels[row, column])))


def _draw_axes(picture: Image.Image, frame: _Frame, classes: Sequence[str], group: int) -> None:
    named = frame.cell >= NAMED_CELL_PX
    used = font(min(13.0, frame.cell - 1) if named else 12.0)
    draw = ImageDraw.Draw(picture)
    for index, text in (_names(classes, used) if named else _numbers(len(classes))).items():
        at = frame.middle(index // group)
        write(draw, (frame.left - 6, frame.top + at), text, used, anchor="rm")
        if named:
            upright = _upright(text, used, min(18, frame.cell))
            corner = (frame.left + at - upright.width / 2, frame.top - 6 - upright.height)
            picture.paste(upright, (round(corner[0]), round(corner[1])))
        else:
            write(draw, (frame.left + at, frame.top - 6), text, used, anchor="ms")


def _names(classes: Sequence[str], used: Font) -> dict[int, str]:
    return {index: shortened(name, used, NAME_PX - 10) for index, name in enumerate(classes)}


def _numbers(num_classes: int) -> dict[int, str]:
    ticks = nice_ticks(0, num_classes - 1, 10)
    return {int(tick): f"{int(tick)}" for tick in ticks if tick.is_integer()}


def _upright(text: str, used: Font, width: int) -> Image.Image:
    strip = Image.new("RGB", (widest([text], used) + 2, width), PAPER)
    write(ImageDraw.Draw(strip), (0, width / 2), text, used)
    return strip.rotate(90, expand=True)


def _draw_bars(
    draw: ImageDraw.ImageDraw,
    frame: _Frame,
    totals: NDArray[np.float64],
    num_known: NDArray[np.float64],
) -> None:
    """Draws a bar per cell: the mean of its classes' accuracies, as far as they are known."""
    write(draw, (frame.bars, frame.top - 26), "accuracy, %", font(12), anchor="ls")
    right, bottom = frame.bars + BARS_PX, frame.top + frame.side
    draw.rectangle((frame.bars, frame.top, right, bottom - 1), _BAR_GROUND)
    for index in np.flatnonzero(num_known).tolist():
        percent = totals[index] / num_known[index]
        y = frame.top + index * frame.cell
        draw.rectangle(
            (frame.bars, y, frame.bars + percent / 100 * BARS_PX, y + frame.cell - 2), _BAR
        )
        if frame.cell >= NAMED_CELL_PX:
            place = (right + 4, frame.top + frame.middle(index))
            write(draw, place, f"{percent:.0f}", font(min(12.0, frame.cell - 1)))
    for percent in (0, 50, 100):
        x = frame.bars + percent / 100 * BARS_PX
        draw.line((x, frame.top - 3, x, bottom), FAINT)
        write(draw, (x, frame.top - 6), f"{percent}", font(12), anchor="ms", fill=FAINT)


def _draw_list(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], title: str, rows: Sequence[tuple[str, str]]
) -> int:
    """Writes rows of a text and a number below a title; gives where they end."""
    left, top = place
    write(draw, (left, top + 8), title, font(15))
    for number, (text, value) in enumerate(rows, start=1):
        y = top + 8 + number * LINE_PX
        room = LIST_PX - widest([value], font(13)) - GAP_PX
        write(draw, (left, y), shortened(text, font(13), room), font(13))
        write(draw, (left + LIST_PX, y), value, font(13), anchor="rm")
    return top + (len(rows) + 1) * LINE_PX


def _pairs(matrix: NDArray[np.int64], classes: Sequence[str]) -> list[tuple[str, str]]:
    mistakes = (matrix - np.diag(matrix.diagonal())).ravel()
    most = min(LIST_LENGTH, np.count_nonzero(mistakes))
    found = []
    for flat in np.argsort(-mistakes, kind="stable")[:most]:
        true, predicted = divmod(int(flat), len(classes))
        share = 100 * mistakes[flat] / matrix[true].sum()
        text = f"{classes[true]} as {classes[predicted]}"
        found.append((text, f"{mistakes[flat]} ({share:.0f} %)"))
    return found


def _lowest(accuracy: NDArray[np.float64], classes: Sequence[str]) -> list[tuple[str, str]]:
    order = np.argsort(accuracy, kind="stable")[:LIST_LENGTH]  # NaN comes last
    return [(classes[i], f"{accuracy[i]:.1f} %") for i in order if not np.isnan(accuracy[i])]

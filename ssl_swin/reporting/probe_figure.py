"""What probes found over a training, as a picture: a panel per measure, a line per stage."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from ssl_swin.reporting.chart import nice_ticks
from ssl_swin.reporting.drawing import FAINT, PAPER, Colour, font, write
from ssl_swin.reporting.sweep_axes import Axis, result_axis

PANELS_IN_ROW = 2
PANEL_PX = (380, 270)
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 58, 70, 40, 38  # around the plot of a panel
GRID_COLOUR = (232, 235, 239)
# By stage, from the first: dark to light would be read as worse to better; these only differ.
STAGE_COLOURS: tuple[Colour, ...] = ((42, 112, 178), (226, 94, 32), (34, 139, 87), (150, 70, 160))

Series = Mapping[int, Mapping[int, float]]  # by stage, values by step


class ProbePanel(NamedTuple):
    """One measure."""

    title: str
    series: Series


def draw_probes(panels: Sequence[ProbePanel]) -> Image.Image:
    """Draw a panel per measure.

    Args:
        panels: At least one, each with a value.
    """
    columns = min(PANELS_IN_ROW, len(panels))
    rows = math.ceil(len(panels) / columns)
    picture = Image.new("RGB", (columns * PANEL_PX[0], rows * PANEL_PX[1]), PAPER)
    draw = ImageDraw.Draw(picture)
    for at, panel in enumerate(panels):
        row, column = divmod(at, columns)
        _draw_panel(draw, (column * PANEL_PX[0], row * PANEL_PX[1]), panel)
    return picture


def _draw_panel(draw: ImageDraw.ImageDraw, corner: tuple[int, int], panel: ProbePanel) -> None:
    left, top = corner[0] + LEFT_PX, corner[1] + TOP_PX
    right, bottom = corner[0] + PANEL_PX[0] - RIGHT_PX, corner[1] + PANEL_PX[1] - BOTTOM_PX
    points = [pair for line in panel.series.values() for pair in line.items()]
    steps = _step_axis([step for step, _ in points])
    values = result_axis([value for _, value in points])
    write(draw, (left, top - 20), panel.title, font(15))
    for text, at in values.ticks:
        y = bottom + (top - bottom) * at
        draw.line((left, y, right, y), GRID_COLOUR)
        write(draw, (left - 7, y), text, font(12), anchor="rm", fill=FAINT)
    for text, at in steps.ticks:
        x = left + (right - left) * at
        draw.line((x, bottom, x, bottom + 4), FAINT)
        write(draw, (x, bottom + 8), text, font(12), anchor="mt", fill=FAINT)
    draw.line((left, bottom, right, bottom), FAINT)
    write(draw, (right + 8, bottom + 15), "step", font(12), fill=FAINT)
    ends: dict[int, float] = {}
    for stage, line in panel.series.items():
        places = [
            (left + (right - left) * steps.of(step), bottom + (top - bottom) * values.of(value))
            for step, value in sorted(line.items())
        ]
        colour = STAGE_COLOURS[(stage - 1) % len(STAGE_COLOURS)]
        if len(places) > 1:
            draw.line(places, colour, 2, joint="curve")
        for x, y in places:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), colour, PAPER)
        ends[stage] = places[-1][1]
    _name_lines(draw, right + 8, ends)


def _step_axis(steps: Sequence[int]) -> Axis:
    axis = result_axis(steps)
    whole = [tick for tick in nice_ticks(min(steps), max(steps)) if tick == round(tick)]
    return axis._replace(ticks=tuple((f"{round(tick):,}", axis.of(tick)) for tick in whole))


def _name_lines(draw: ImageDraw.ImageDraw, x: float, ends: Mapping[int, float]) -> None:
    """Write each line's stage beside its end, none over another."""
    least, height = -math.inf, 15
    for stage, y in sorted(ends.items(), key=lambda pair: pair[1]):
        least = max(y, least + height)
        colour = STAGE_COLOURS[(stage - 1) % len(STAGE_COLOURS)]
        write(draw, (x, least), f"stage {stage}", font(13), fill=colour)

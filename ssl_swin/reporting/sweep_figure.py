"""The settings of a sweep against its results, as a picture.

Two settings that were tried in all combinations give a grid, anything else a panel per setting in
which every job is a dot. Jobs without a result are crosses.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from ssl_swin.files import atomic_path
from ssl_swin.reporting.drawing import FAINT, INK, PAPER, font, shortened, write
from ssl_swin.reporting.sweep_axes import NOT_GIVEN, Axis, axis_of, result_axis
from ssl_swin.reporting.sweep_grid import BEST_COLOUR, Cells, draw_cells
from ssl_swin.runs.metrics import is_lower_better
from ssl_swin.runs.sweep_table import read_jobs

FIGURE = "sweep.png"  # in the folder of the sweep
MOST_PANELS = 12
PANELS_IN_ROW = 3
MOST_IN_GRID = 12  # values of a setting
PANEL_PX = (340, 250)
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 66, 18, 34, 40  # around the plot of a panel
HEADER_PX, MARGIN_PX = 56, 14
DOT_COLOUR, GRID_COLOUR = (42, 112, 178), (232, 235, 239)


class Job(NamedTuple):
    """What a job was asked for, and its result; None if it has none."""

    settings: Mapping[str, str]
    value: float | None


def write_sweep_figure(sweep: Path) -> Path:
    """Draw the results of a sweep's jobs into `sweep.png` in its folder, and return its path.

    Args:
        sweep: Folder of the sweep.

    Raises:
        UserError: If there is no job in it.
    """
    records = list(read_jobs(sweep).values())
    metrics = list(dict.fromkeys(str(r["metric"]) for r in records if r.get("metric")))
    metric = metrics[0] if metrics else "result"
    jobs = [_job(record) for record in records if record.get("metric") in (None, metric)]
    with atomic_path(sweep / FIGURE) as temporary:
        draw_sweep(metric, jobs).save(temporary, "png")
    return sweep / FIGURE


def draw_sweep(metric: str, jobs: Sequence[Job]) -> Image.Image:
    """Draw the results of jobs against what differs between them.

    Args:
        metric: Name of the result; of what is called a loss the lowest is the best.
        jobs: At least one.
    """
    keys = _varied(jobs)
    results = [(i, job.value) for i, job in enumerate(jobs) if job.value is not None]
    sign = 1 if is_lower_better(metric) else -1
    best = min(results, key=lambda each: sign * each[1])[0] if results else None
    cells = _cells(keys, jobs) if len(keys) == 2 else None
    picture = draw_cells(cells, sign) if cells else _draw_panels(keys[:MOST_PANELS], jobs, best)
    title = _title(metric, jobs, best, keys)
    width = max(picture.width, 460)
    whole = Image.new("RGB", (width, picture.height + HEADER_PX), PAPER)
    whole.paste(picture, (0, HEADER_PX))
    draw = ImageDraw.Draw(whole)
    for text, y, size, colour in ((title[0], 18, 16, INK), (title[1], 41, 13, FAINT)):
        used = font(size)
        line = shortened(text, used, width - 2 * MARGIN_PX)
        write(draw, (MARGIN_PX, y), line, used, fill=colour)
    return whole


def _job(record: Mapping[str, Any]) -> Job:
    settings, value = record.get("settings"), record.get("value")
    known = settings if isinstance(settings, dict) else {}
    result = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    return Job({str(k): str(v) for k, v in known.items()}, result)


def _varied(jobs: Sequence[Job]) -> list[str]:
    """Return the settings that differ between jobs; all of them if none does."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.settings))
    varied = [key for key in keys if len({job.settings.get(key) for job in jobs}) > 1]
    return varied or keys or [""]


def _title(
    metric: str, jobs: Sequence[Job], best: int | None, keys: Sequence[str]
) -> tuple[str, str]:
    known = sum(job.value is not None for job in jobs)
    head = f"{metric} of {known} of {len(jobs)} jobs"
    if best is None:
        return head, "no job has a result yet"
    settings = ", ".join(f"{k}={jobs[best].settings[k]}" for k in keys if k in jobs[best].settings)
    below = f"best (orange): {jobs[best].value:.5g} with {settings}"
    if (left_out := len(keys) - MOST_PANELS) > 0:
        below = f"{left_out} more settings in sweep.csv; {below}"
    return head, below


def _cells(keys: Sequence[str], jobs: Sequence[Job]) -> Cells | None:
    """Return the mean result of each combination of two settings; None if most were not tried."""
    down, across = (axis_of([job.settings.get(key) for job in jobs]) for key in keys)
    shape = len(down.texts), len(across.texts)
    tried: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        place = tuple(job.settings.get(key, NOT_GIVEN) for key in keys)
        tried.setdefault((place[0], place[1]), []).extend([] if job.value is None else [job.value])
    if min(shape) < 2 or max(shape) > MOST_IN_GRID or 2 * len(tried) <= shape[0] * shape[1]:
        return None
    means = {place: sum(values) / len(values) for place, values in tried.items() if values}
    return Cells(keys[0], keys[1], down.texts, across.texts, means, set(tried))


def _draw_panels(keys: Sequence[str], jobs: Sequence[Job], best: int | None) -> Image.Image:
    columns = min(PANELS_IN_ROW, len(keys))
    rows = math.ceil(len(keys) / columns)
    size = (columns * PANEL_PX[0], rows * PANEL_PX[1])
    picture = Image.new("RGB", size, PAPER)
    values = result_axis([job.value for job in jobs if job.value is not None])
    for at, key in enumerate(keys):
        row, column = divmod(at, columns)
        corner = column * PANEL_PX[0], row * PANEL_PX[1]
        _draw_panel(ImageDraw.Draw(picture), corner, key, jobs, values, best)
    return picture


def _draw_panel(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    key: str,
    jobs: Sequence[Job],
    values: Axis,
    best: int | None,
) -> None:
    left, top = corner[0] + LEFT_PX, corner[1] + TOP_PX
    width = PANEL_PX[0] - LEFT_PX - RIGHT_PX
    height = PANEL_PX[1] - TOP_PX - BOTTOM_PX
    settings = axis_of([job.settings.get(key) for job in jobs])
    scale = ", log scale" if settings.is_log else ""
    write(draw, (left, top - 16), shortened(key + scale, font(14), width), font(14))
    for text, at in values.ticks:
        y = top + (1 - at) * height
        draw.line((left, y, left + width, y), GRID_COLOUR)
        write(draw, (left - 7, y), text, font(12), anchor="rm", fill=FAINT)
    room = width / max(len(settings.ticks), 1)
    for text, at in settings.ticks:
        x = left + at * width
        draw.line((x, top + height, x, top + height + 4), FAINT)
        write(draw, (x, top + height + 8), shortened(text, font(12), room), font(12), anchor="mt")
    draw.line((left, top + height, left + width, top + height), FAINT)
    order = sorted(range(len(jobs)), key=lambda at: at == best)  # the best one on top
    for at in order:
        x = left + settings.place(jobs[at].settings.get(key, NOT_GIVEN)) * width
        value = jobs[at].value
        y = top + height if value is None else top + (1 - values.of(value)) * height
        _draw_job(draw, x, y, has_result=value is not None, is_best=at == best)


def _draw_job(
    draw: ImageDraw.ImageDraw, x: float, y: float, *, has_result: bool, is_best: bool
) -> None:
    if has_result:
        size = 5 if is_best else 4
        colour = BEST_COLOUR if is_best else DOT_COLOUR
        draw.ellipse((x - size, y - size, x + size, y + size), colour, PAPER)
        return
    for tilt in (-4, 4):
        draw.line((x - 4, y - tilt, x + 4, y + tilt), FAINT, 2)

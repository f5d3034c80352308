"""Points in two dimensions, coloured by class."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ssl_swin.reporting.drawing import FAINT, PAPER, class_colours, font, shortened, write

SIDE_PX, MARGIN_PX, LEGEND_PX = 720, 44, 200
MOST_NAMED = 24  # classes in the legend
ENLARGED = 2  # drawn larger and scaled down, for smooth edges
NO_CLASS = (150, 156, 164)
MANY_POINTS, FEW_POINTS = 20_000, 1_000
ROW_PX = 22


def draw_map(
    points: NDArray[np.float32], labels: Sequence[str], axes: tuple[str, str]
) -> Image.Image:
    """Draw a point of each vector, and a legend where there are classes.

    Args:
        points: (N, 2).
        labels: N names of classes, "" for none. Beyond the 24 most frequent, classes are grey.
        axes: What the two directions are.

    Returns:
        RGB image.
    """
    counts = Counter(label for label in labels if label)
    named = sorted(name for name, _ in counts.most_common(MOST_NAMED))
    colour_of = dict(zip(named, class_colours(len(named)), strict=True))
    colours = [colour_of.get(label, NO_CLASS) for label in labels]
    width = SIDE_PX + (LEGEND_PX if named else 0)
    plot = _drawn(points, colours, least_px=2 * MARGIN_PX + ROW_PX * (len(named) + 1))
    picture = Image.new("RGB", (width, plot.height), PAPER)
    picture.paste(plot, (0, 0))
    draw = ImageDraw.Draw(picture)
    used = font(13)
    write(draw, (SIDE_PX / 2, plot.height - 16), axes[0], used, anchor="mm", fill=FAINT)
    _write_upwards(picture, axes[1])
    for number, name in enumerate(named):
        y = MARGIN_PX + ROW_PX * number
        draw.ellipse((SIDE_PX, y - 5, SIDE_PX + 10, y + 5), fill=colour_of[name])
        text = shortened(f"{' '.join(name.split())} ({counts[name]:,})", used, LEGEND_PX - 32)
        write(draw, (SIDE_PX + 18, y), text, used)
    if rest := len(counts) - len(named):
        y = MARGIN_PX + ROW_PX * len(named)
        write(draw, (SIDE_PX + 18, y), f"{rest:,} more in grey", used, fill=FAINT)
    return picture


def _drawn(
    points: NDArray[np.float32], colours: Sequence[tuple[int, int, int]], *, least_px: int
) -> Image.Image:
    """Draw the points to one scale in both directions, as high as they need."""
    low, high = points.min(axis=0), points.max(axis=0)
    across, up = (max(float(extent), 1e-12) for extent in high - low)
    room = (SIDE_PX - 2 * MARGIN_PX) * ENLARGED
    scale = room / max(across, up)
    height = max(least_px, min(SIDE_PX, round(scale * up / ENLARGED) + 2 * MARGIN_PX))
    size = SIDE_PX * ENLARGED, height * ENLARGED
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    middle = (low + high) / 2
    radius = ENLARGED * _radius_px(len(points))
    order = np.random.default_rng(0).permutation(len(points))  # no class lies on top of the others
    for index in order.tolist():
        x = size[0] / 2 + scale * float(points[index, 0] - middle[0])
        y = size[1] / 2 - scale * float(points[index, 1] - middle[1])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colours[index])
    return picture.resize((SIDE_PX, height), Image.Resampling.LANCZOS)


def _radius_px(num_points: int) -> float:
    if num_points <= FEW_POINTS:
        return 4
    return 2.5 if num_points <= MANY_POINTS else 1


def _write_upwards(picture: Image.Image, text: str) -> None:
    band = Image.new("RGB", (picture.height, 20), PAPER)
    write(ImageDraw.Draw(band), (picture.height / 2, 10), text, font(13), anchor="mm", fill=FAINT)
    picture.paste(band.rotate(90, expand=True), (6, 0))

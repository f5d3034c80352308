"""The mistakes that a classifier is surest of, with the true and the predicted class."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw
from torch import Tensor

from ssl_swin.reporting.drawing import FAINT, INK, PAPER, font, shortened, write
from ssl_swin.reporting.figures import as_rgb

COLUMNS = 6
TILE_PX = 140  # side of the square that an image is shown in
TEXT_PX, GAP_PX = 52, 12  # three lines below an image; between tiles
WRONG = (180, 60, 20)


class Mistake(NamedTuple):
    """An image that was taken for another class than its own."""

    confidence: float  # softmax score of the predicted class, in [0, 1]
    name: str  # of the image in its set
    label: int
    predicted: int
    image: Tensor  # normalised float (bands, H, W), one or three bands


def surest(mistakes: Sequence[Mistake], most: int) -> list[Mistake]:
    """Return the mistakes of highest confidence, the surest first, whatever order they came in.

    Args:
        mistakes: In any order.
        most: How many at most.
    """
    return sorted(mistakes, key=lambda each: (-each.confidence, each.name))[:most]


def draw_mistakes(
    mistakes: Sequence[Mistake],
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    stretch: bool = False,
) -> Image.Image:
    """Draw a tile per mistake, in rows of six.

    Args:
        mistakes: At least one, all with as many bands.
        classes: Names by label.
        mean: Normalisation of the bands.
        std: Normalisation of the bands.
        stretch: Whether each image is stretched over its own values, of other than 8-bit pixels.

    Returns:
        RGB image.
    """
    columns = min(COLUMNS, len(mistakes))
    rows = math.ceil(len(mistakes) / columns)
    wide, high = TILE_PX + GAP_PX, TILE_PX + TEXT_PX + GAP_PX
    picture = Image.new("RGB", (columns * wide + GAP_PX, rows * high + GAP_PX), PAPER)
    draw = ImageDraw.Draw(picture)
    for at, mistake in enumerate(mistakes):
        row, column = divmod(at, columns)
        left, top = GAP_PX + column * wide, GAP_PX + row * high
        (pixels,) = as_rgb(mistake.image[None], mean, std, stretch=stretch)
        _paste(picture, Image.fromarray(pixels), left, top)
        _describe(draw, mistake, classes, (left, top + TILE_PX))
    return picture


def _paste(picture: Image.Image, tile: Image.Image, left: int, top: int) -> None:
    ratio = TILE_PX / max(tile.size)
    width, height = (max(1, round(side * ratio)) for side in tile.size)
    resized = tile.resize((width, height), Image.Resampling.BICUBIC)
    picture.paste(resized, (left + (TILE_PX - width) // 2, top + (TILE_PX - height) // 2))


def _describe(
    draw: ImageDraw.ImageDraw, mistake: Mistake, classes: Sequence[str], corner: tuple[int, int]
) -> None:
    percent = f"{100 * mistake.confidence:.0f} % "
    lines = [
        (f"is {_in_a_line(classes[mistake.label])}", INK, 13),
        (f"{percent}{_in_a_line(classes[mistake.predicted])}", WRONG, 13),
        (_in_a_line(mistake.name), FAINT, 11),
    ]
    for number, (text, colour, size_px) in enumerate(lines):
        used = font(size_px)
        place = (corner[0], corner[1] + 10 + 16 * number)
        write(draw, place, shortened(text, used, TILE_PX), used, fill=colour)


def _in_a_line(name: str) -> str:
    return " ".join(name.split())

"""The mistakes that a classifier is surest of, with the true and the predicted class."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from ssl_swin.reporting.drawing import FAINT
from ssl_swin.reporting.figures import as_rgb
from ssl_swin.reporting.tiles import WRONG, Line, Tile, draw_tiles, in_rows

COLUMNS = 6


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
    tiles = [
        Tile(as_rgb(each.image[None], mean, std, stretch=stretch)[0], _lines(each, classes))
        for each in mistakes
    ]
    return draw_tiles(in_rows(tiles, COLUMNS))


def _lines(mistake: Mistake, classes: Sequence[str]) -> tuple[Line, ...]:
    percent = f"{100 * mistake.confidence:.0f} % "
    return (
        Line(f"is {classes[mistake.label]}"),
        Line(f"{percent}{classes[mistake.predicted]}", WRONG),
        Line(mistake.name, FAINT, 11),
    )

"""Colours for numbers, and text that fits into pictures."""

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

INK, PAPER, FAINT = (28, 32, 38), (255, 255, 255), (150, 156, 164)
# From none to all: white, light blue, blue, night. Its lightness falls evenly.
_STOPS = np.array([[255, 255, 255], [158, 202, 232], [42, 112, 178], [8, 35, 84]], dtype=np.float64)
_LIGHT_TEXT_FROM = 0.5

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def heat(levels: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours levels in [0, 1], of any shape, to uint8 RGB (..., 3); white is 0, dark blue is 1."""
    stops = np.linspace(0, 1, len(_STOPS))
    channels = [np.interp(levels, stops, _STOPS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def ink_on(level: float) -> Colour:
    """Chooses the text colour that can be read on `heat(level)`."""
    return PAPER if level > _LIGHT_TEXT_FROM else INK


def class_colours(number: int) -> list[Colour]:
    """Returns a colour for each of so many classes: hues a golden angle apart."""
    hues = (0.618034 * label % 1 for label in range(number))
    colours = (colorsys.hsv_to_rgb(hue, 0.7, 0.9) for hue in hues)
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colours]


def colour_codes(number: int) -> list[str]:
    """Returns the colours of so many classes as #rrggbb."""
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in class_colours(number)]


def font(size_px: float) -> Font:
    """Returns PIL's own font, which needs no file."""
    return ImageFont.load_default(size=size_px)


def widest(texts: Sequence[str], used: Font) -> int:
    """Measures the widest of the texts in pixels; 0 if there are none."""
    return max((round(used.getlength(text)) for text in texts), default=0)


def shortened(text: str, used: Font, width_px: float) -> str:
    """Cuts a text that is wider than `width_px`, and ends it with three dots."""
    if used.getlength(text) <= width_px:
        return text
    while text and used.getlength(text + "...") > width_px:
        text = text[:-1]
    return text + "..."


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    used: Font,
    *,
    anchor: str = "lm",
    fill: Colour = INK,
) -> None:
    """Writes one line; `anchor` as PIL has it, by default the middle of the left edge."""
    draw.text(place, text, font=used, anchor=anchor, fill=fill)

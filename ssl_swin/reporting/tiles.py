"""Pictures of images in rows, each with a few words below it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ssl_swin.reporting.drawing import INK, PAPER, Colour, font, shortened, write

TILE_PX = 140  # side of the square that an image is shown in
TEXT_PX, GAP_PX = 52, 12  # three lines below an image; between tiles
WRONG, RIGHT = (180, 60, 20), (24, 128, 72)
LINE_PX = 16


class Line(NamedTuple):
    """Words below an image."""

    text: str
    colour: Colour = INK
    size_px: int = 13


class Tile(NamedTuple):
    """An image and what is said of it.

    Attributes:
        pixels: uint8 (H, W, 3), of any size.
        lines: Up to three.
        frame: Colour of a frame around it; None for none.
    """

    pixels: NDArray[np.uint8]
    lines: tuple[Line, ...]
    frame: Colour | None = None


def in_rows(tiles: Sequence[Tile], columns: int) -> list[Sequence[Tile]]:
    """Return tiles in rows of so many."""
    return [tiles[first : first + columns] for first in range(0, len(tiles), columns)]


def draw_tiles(rows: Sequence[Sequence[Tile]]) -> Image.Image:
    """Draw rows of tiles.

    Args:
        rows: At least one, of at least one tile.

    Returns:
        RGB image.
    """
    wide, high = TILE_PX + GAP_PX, TILE_PX + TEXT_PX + GAP_PX
    size = max(map(len, rows)) * wide + GAP_PX, len(rows) * high + GAP_PX
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            _draw_tile(picture, draw, tile, GAP_PX + column * wide, GAP_PX + row * high)
    return picture


def _draw_tile(
    picture: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int
) -> None:
    image = Image.fromarray(tile.pixels)
    ratio = TILE_PX / max(image.size)
    width, height = (max(1, round(side * ratio)) for side in image.size)
    place = left + (TILE_PX - width) // 2, top + (TILE_PX - height) // 2
    picture.paste(image.resize((width, height), Image.Resampling.BICUBIC), place)
    if tile.frame is not None:
        box = (place[0] - 4, place[1] - 4, place[0] + width + 3, place[1] + height + 3)
        draw.rectangle(box, outline=tile.frame, width=3)
    for number, line in enumerate(tile.lines):
        used = font(line.size_px)
        text = shortened(" ".join(line.text.split()), used, TILE_PX)
        write(draw, (left, top + TILE_PX + 10 + LINE_PX * number), text, used, fill=line.colour)

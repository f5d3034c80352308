"""Objects drawn into images: boxes and masks in the colours of their classes, names and scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ssl_swin.figure import Objects
from ssl_swin.reporting.drawing import INK, PAPER, Colour, Font, class_colours, font

MASK_OPACITY = 0.45
FONT_PX = 10
PAD_PX = 1  # around a text
WIDEST_TEXT = 1.5  # of a text, times the width of its box; a longer one would cover others
THICK_FROM_PX = 200  # shorter side of an image whose boxes are two pixels thick


def draw_objects(
    tiles: NDArray[np.uint8], objects: Sequence[Objects], classes: Sequence[str]
) -> NDArray[np.uint8]:
    """Return images with their objects.

    A box bears the name of its class, unless there is only one, and its score; a narrow one the
    score alone, or nothing.

    Args:
        tiles: Images, uint8 (B, H, W, 3).
        objects: Of each image; those drawn last lie on top, so the highest score comes first.
        classes: Names by label.
    """
    colours = class_colours(len(classes))
    return np.stack(
        [_drawn(tile, each, classes, colours) for tile, each in zip(tiles, objects, strict=True)]
    )


def labels_in(columns: Sequence[Sequence[Objects]]) -> list[int]:
    """Return the classes that objects are of, in their order."""
    return sorted({int(label) for objects in columns for each in objects for label in each.labels})


def _drawn(
    tile: NDArray[np.uint8], objects: Objects, classes: Sequence[str], colours: Sequence[Colour]
) -> NDArray[np.uint8]:
    labels = objects.labels.tolist()
    if objects.masks is not None:
        tile = _with_masks(tile, objects.masks.cpu().numpy(), [colours[label] for label in labels])
    image = Image.fromarray(tile)
    draw = ImageDraw.Draw(image)
    used = font(FONT_PX)
    line_px = 2 if min(image.size) >= THICK_FROM_PX else 1
    boxes = objects.boxes.round().int().tolist()
    for at in reversed(range(len(boxes))):
        x_min, y_min, x_max, y_max = boxes[at]
        corners = (x_min, y_min, max(x_min, x_max - 1), max(y_min, y_max - 1))
        draw.rectangle(corners, outline=colours[labels[at]], width=line_px)
    for at in reversed(range(len(boxes))):
        score = "" if objects.scores is None else f"{float(objects.scores[at]):.2f}"
        name = classes[labels[at]] if len(classes) > 1 else ""
        text = _fitting(name, score, boxes[at], used)
        if text:
            _write_on_box(draw, boxes[at], text, used, colours[labels[at]])
    return np.asarray(image)


def _with_masks(
    tile: NDArray[np.uint8], masks: NDArray[np.bool_], colours: Sequence[Colour]
) -> NDArray[np.uint8]:
    """Tint the pixels of each mask, which may be smaller than the tile, in its colour."""
    tinted = tile.astype(np.float32)
    for at in reversed(range(len(masks))):
        height, width = masks[at].shape
        part = tinted[:height, :width]
        colour = np.array(colours[at], dtype=np.float32)
        part[masks[at]] += MASK_OPACITY * (colour - part[masks[at]])
    return tinted.round().astype(np.uint8)


def _fitting(name: str, score: str, box: Sequence[int], used: Font) -> str:
    """Return what can be written on a box: name and score, the score alone, or nothing."""
    width_px = WIDEST_TEXT * (box[2] - box[0])
    texts = (f"{name} {score}".strip(), score)
    return next((text for text in texts if text and used.getlength(text) <= width_px), "")


def _write_on_box(
    draw: ImageDraw.ImageDraw, box: Sequence[int], text: str, used: Font, colour: Colour
) -> None:
    """Write above a box, or into it where it touches the upper border; never beyond the right."""
    width_px, height_px = round(used.getlength(text)) + 2 * PAD_PX, FONT_PX + 2 * PAD_PX
    left = max(0, min(box[0], draw.im.size[0] - width_px))
    top = box[1] - height_px if box[1] >= height_px else max(0, box[1])
    draw.rectangle((left, top, left + width_px - 1, top + height_px - 1), fill=colour)
    middle = (left + PAD_PX, top + height_px / 2)
    draw.text(middle, text, font=used, anchor="lm", fill=ink_on_colour(colour))


def ink_on_colour(colour: Colour) -> Colour:
    """Choose the text colour that can be read on a colour."""
    red, green, blue = colour
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else PAPER

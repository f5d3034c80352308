"""Figures of images in columns, as objectives and tasks describe them."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from ssl_swin.errors import UserError
from ssl_swin.figure import (
    ClassColumn,
    ColourColumn,
    Column,
    DifferenceColumn,
    Figure,
    ImageColumn,
    LabelColumn,
    MistakeColumn,
    ObjectColumn,
    SimilarityColumn,
)
from ssl_swin.masking import expand_mask
from ssl_swin.pixels import denormalize
from ssl_swin.reporting.drawing import Colour, class_colours
from ssl_swin.reporting.objects import draw_objects, labels_in

MASKED_GREY = 118  # of masked pixels
TINT = 0.5  # share of the colour of a class in its pixels
Bands = Sequence[int] | Sequence[Sequence[int]] | None
GAP_PX = 2
HEADER_PX = 16
SQUARE_PX = HEADER_PX - 6  # of a colour in a legend
STRETCH_PERCENTILES = (2, 98)
# Colours of errors and of likeness from 0 to 1: black, red, yellow, white.
_HEAT = np.array([[0, 0, 0], [180, 20, 30], [255, 190, 40], [255, 255, 255]], dtype=np.float64)
_WRONG = [230, 60, 40]
_HEAT_FULL = 0.5  # mean absolute error over channels, of values in [0, 1], that is drawn white


def band_groups(bands: Bands, channels: int) -> list[list[int]]:
    """Chooses which bands are drawn: each group as an image of its own.

    Args:
        bands: Three channels to show as red, green and blue, or one to show grey, counted from 0;
            or several such groups. None takes the first three, or the first where there are fewer.
        channels: How many there are.

    Raises:
        UserError: If a group is not one or three bands, or one is out of range.
    """
    if bands is None:
        return [[0, 1, 2] if channels >= 3 else [0]]
    flat = [band for band in bands if isinstance(band, int)]
    groups = [flat] if len(flat) == len(bands) else bands
    for group in groups:
        known = not isinstance(group, int) and all(0 <= band < channels for band in group)
        if not known or len(group) not in (1, 3):  # type: ignore[arg-type]
            raise UserError(
                f"bands to draw must be one or three from 0 to {channels - 1}, or a list of such "
                f"groups as [[0], [1]], got {[*bands]} (callbacks.reconstructions.bands)"
            )
    return [list(group) for group in groups]  # type: ignore[arg-type]


def shown_bands(bands: Bands, channels: int) -> list[int]:
    """Chooses the bands of a single image: the first group, see `band_groups`."""
    return band_groups(bands, channels)[0]


def draw_figure(
    figure: Figure,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    bands: Bands = None,
    stretch: bool = False,
    names: Sequence[str] = (),
) -> Image.Image:
    """Draw one row per example and one column per part of a figure.

    Args:
        figure: What to draw; the first column shows images.
        mean: Normalisation of the images.
        std: Normalisation of the images.
        bands: Channels to show, as in `band_groups`: of several groups, each is a column of its
            own. Differences are of all channels.
        stretch: Whether each band's black and white are the 2nd and 98th percentile of the first
            column's values, in all columns, instead of 0 and 1.
        names: Title of each row; none leaves the titles out.

    Returns:
        RGB image.

    Raises:
        UserError: As in `band_groups`.
    """
    first = figure[0]
    assert isinstance(first, ImageColumn)
    groups = band_groups(bands, first.images.shape[1])
    if stretch:
        mean, std = _stretched(first.images)
    size = (first.images.shape[-2], first.images.shape[-1])
    drawn: list[tuple[str, np.ndarray]] = []
    for column in figure:
        if isinstance(column, ImageColumn):
            parts = _of_bands(column, mean, std, groups)
            if isinstance(column, ObjectColumn):
                parts = [draw_objects(part, column.objects, column.classes) for part in parts]
            elif isinstance(column, ClassColumn):
                parts = [_tinted(part, column.labels) for part in parts]
            drawn += zip(_titles(column.title, groups), parts, strict=True)
        else:
            drawn.append((column.title, _tiles(column, mean, std, size)))
    titles, tiles = [title for title, _ in drawn], [part for _, part in drawn]
    return _lay_out(titles, tiles, names, legend_of(figure))


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Put pictures below each other, at the left on white."""
    first, *others = pictures
    if not others:
        return first
    size = max(each.width for each in pictures), sum(each.height for each in pictures)
    whole = Image.new("RGB", size, "white")
    top = 0
    for each in pictures:
        whole.paste(each, (0, top))
        top += each.height
    return whole


def legend_of(figure: Figure) -> list[tuple[str, Colour]]:
    """Return the names and colours of the classes whose objects or pixels a figure shows."""
    shown: set[int] = set()
    classes: tuple[str, ...] = ()
    for column in figure:
        if isinstance(column, ObjectColumn):
            shown |= {*labels_in([column.objects])}
            classes = column.classes
        elif isinstance(column, ClassColumn):
            shown |= {label for label in np.unique(column.labels.numpy()).tolist() if label >= 0}
            classes = column.classes
    colours = class_colours(len(classes))
    return [(classes[label], colours[label]) for label in sorted(shown)]


def as_rgb(
    images: Tensor, mean: Sequence[float], std: Sequence[float], *, stretch: bool = False
) -> np.ndarray:
    """Return images as they are seen, uint8 (B, H, W, 3).

    Args:
        images: Normalised, (B, bands, H, W), of one or three bands.
        mean: Normalisation of the bands.
        std: Normalisation of the bands.
        stretch: As in `draw_figure`.
    """
    if stretch:
        mean, std = _stretched(images)
    return _to_rgb(denormalize(images, mean, std))


def image_columns(
    figure: Figure, mean: Sequence[float], std: Sequence[float], *, stretch: bool = False
) -> dict[str, np.ndarray]:
    """Return the images of a figure as `draw_figure` draws them.

    Args:
        figure: The figure; its first column shows images.
        mean: Normalisation of the images.
        std: Normalisation of the images.
        stretch: As in `draw_figure`.

    Returns:
        uint8 (B, H, W, 3) by the title of the column.
    """
    columns = [column for column in figure if isinstance(column, ImageColumn)]
    bands = band_groups(None, columns[0].images.shape[1])
    if stretch:
        mean, std = _stretched(columns[0].images)
    return {column.title: _of_bands(column, mean, std, bands)[0] for column in columns}


def _titles(title: str, groups: list[list[int]]) -> list[str]:
    if len(groups) == 1:
        return [title]
    return [f"{title} {','.join(map(str, group))}" for group in groups]


def _of_bands(
    column: ImageColumn, mean: Sequence[float], std: Sequence[float], groups: list[list[int]]
) -> list[np.ndarray]:
    """Draw the images of a column, uint8 (B, H, W, 3) for each group of bands."""
    pixels = denormalize(column.images, mean, std)
    if column.masked is not None:
        masked = expand_mask(column.masked, (pixels.shape[-2], pixels.shape[-1])).unsqueeze(1)
        pixels = torch.where(masked, torch.full_like(pixels, MASKED_GREY), pixels)
    return [_to_rgb(pixels[:, group]) for group in groups]


def _tiles(
    column: Column, mean: Sequence[float], std: Sequence[float], size: tuple[int, int]
) -> np.ndarray:
    """Draw what is no image, uint8 (B, H, W, 3)."""
    if isinstance(column, LabelColumn):
        return _label_colours(column.labels)
    if isinstance(column, MistakeColumn):
        return _mistakes(column.mistakes)
    if isinstance(column, ColourColumn):
        return _to_rgb(_squares(column.colours.clamp(0, 1) * 255, size).round().byte())
    if isinstance(column, SimilarityColumn):
        similarity = _squares(column.similarity.unsqueeze(1), size).squeeze(1)
        return _marked(_heat(similarity), column.marked)
    assert isinstance(column, DifferenceColumn)
    pixels, reference = (
        denormalize(images, mean, std).float() for images in (column.images, column.reference)
    )
    return _heat((pixels - reference).abs().mean(dim=1) / 255 / _HEAT_FULL)


def _squares(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge (B, C, h, w) to (B, C, H, W) without blending cells."""
    return functional.interpolate(maps.float(), size, mode="nearest-exact")


def _marked(tiles: np.ndarray, at: tuple[float, float]) -> np.ndarray:
    """Draw a white cross with a black edge on each tile."""
    height, width = tiles.shape[1:3]
    row, column = int(at[0] * height), int(at[1] * width)
    arm = max(2, min(height, width) // 32)
    marked = tiles.copy()
    for edge, colour in ((1, 0), (0, 255)):
        marked[:, _around(row, edge), _around(column, arm + edge)] = colour
        marked[:, _around(row, arm + edge), _around(column, edge)] = colour
    return marked


def _around(centre: int, reach: int) -> slice:
    return slice(max(0, centre - reach), centre + reach + 1)


def _label_colours(labels: Tensor) -> np.ndarray:
    """Classes (B, H, W) to uint8 colours (B, H, W, 3): hues a golden angle apart."""
    values = labels.cpu().numpy()
    palette = class_colours(int(values.max(initial=0)) + 1)
    colours: np.ndarray = np.array(palette, dtype=np.uint8)[values.clip(min=0)]
    colours[values < 0] = MASKED_GREY
    return colours


def _tinted(tiles: np.ndarray, labels: Tensor) -> np.ndarray:
    """Blend images, uint8 (B, H, W, 3), with the colours of classes (B, H, W)."""
    colours = _label_colours(labels).astype(np.float32)
    mixed: np.ndarray = tiles + TINT * (colours - tiles)
    return mixed.round().astype(np.uint8)


def _mistakes(mistakes: Tensor) -> np.ndarray:
    values = mistakes.cpu().numpy()
    colours: np.ndarray = np.array([[0, 0, 0], _WRONG], dtype=np.uint8)[values.clip(0, 1)]
    colours[values < 0] = MASKED_GREY
    return colours


def _stretched(images: Tensor) -> tuple[list[float], list[float]]:
    """The mean and deviation with which black becomes 0, and white 1."""
    bands = images.float().transpose(0, 1).flatten(1).cpu().numpy()
    black, white = np.percentile(bands, STRETCH_PERCENTILES, axis=1).astype(float)
    contrast = np.where(white > black, white - black, 1.0)
    return (-black / contrast).tolist(), (1 / contrast).tolist()


def _to_rgb(pixels: Tensor) -> np.ndarray:
    """uint8 (B, 1 or 3, H, W) to (B, H, W, 3)."""
    return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()


def _heat(values: Tensor) -> np.ndarray:
    """Values (B, H, W), of which [0, 1] is told apart, to uint8 colours (B, H, W, 3)."""
    levels = np.clip(values.cpu().numpy(), 0, 1)
    stops = np.linspace(0, 1, len(_HEAT))
    colours = [np.interp(levels, stops, _HEAT[:, channel]) for channel in range(3)]
    return np.stack(colours, axis=-1).astype(np.uint8)


def _lay_out(
    titles: Sequence[str],
    columns: Sequence[np.ndarray],
    names: Sequence[str],
    legend: Sequence[tuple[str, Colour]],
) -> Image.Image:
    num_rows, height, width = columns[0].shape[:3]
    row_px = height + GAP_PX + (HEADER_PX if names else 0)
    width_px, end_px = len(columns) * (width + GAP_PX), HEADER_PX + num_rows * row_px
    lines = _legend_lines(legend, width_px)
    image = Image.new("RGB", (width_px, end_px + HEADER_PX * len(lines)), "white")
    draw = ImageDraw.Draw(image)
    for row, name in enumerate(names):
        text = _shortened(name, image.width - 4, draw)
        draw.text((2, HEADER_PX + row * row_px + 2), text, fill="black")
    for column, (title, tiles) in enumerate(zip(titles, columns, strict=True)):
        left = column * (width + GAP_PX)
        draw.text((left + 2, 2), title, fill="black")
        for row, tile in enumerate(tiles):
            top = HEADER_PX + (row + 1) * row_px - height - GAP_PX
            image.paste(Image.fromarray(tile), (left, top))
    for number, line in enumerate(lines):
        _write_legend(draw, line, end_px + HEADER_PX * number)
    return image


_LegendEntry = tuple[int, str, Colour]  # the left edge, what is written, and the colour before it


def _legend_lines(legend: Sequence[tuple[str, Colour]], width_px: int) -> list[list[_LegendEntry]]:
    """Divide names behind squares of their colours into lines of a width."""
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    lines: list[list[_LegendEntry]] = []
    left = width_px
    for name, colour in legend:
        needed_px = SQUARE_PX + 3 + round(measure.textlength(name))
        if left + needed_px > width_px:
            lines.append([])
            left = 2
        lines[-1].append((left, name, colour))
        left += needed_px + 8
    return lines


def _write_legend(draw: ImageDraw.ImageDraw, line: Sequence[_LegendEntry], top: int) -> None:
    for left, name, colour in line:
        draw.rectangle((left, top + 3, left + SQUARE_PX - 1, top + 2 + SQUARE_PX), fill=colour)
        draw.text((left + SQUARE_PX + 3, top + 2), name, fill="black")


def _shortened(name: str, width_px: int, draw: ImageDraw.ImageDraw) -> str:
    """Cut the beginning of a name that is too long; its end tells images apart."""
    text = name
    while len(text) > 1 and draw.textlength(text) > width_px:
        text = f"...{text.removeprefix('...')[1:]}"
    return text

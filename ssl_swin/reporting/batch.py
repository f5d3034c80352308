"""A picture of a training batch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from ssl_swin.masking import expand_mask
from ssl_swin.reporting.reconstructions import GAP_PX, HEADER_PX, HIDDEN_GREY, shown_bands


def batch_grid(
    pixels: Tensor, mask: Tensor, names: Sequence[str], bands: Sequence[int] | None = None
) -> Image.Image:
    """Draws one row per image: its name, and below it the view and what of it stays visible.

    Args:
        pixels: (B, C, H, W), uint8, uint16 or float32. The latter two are stretched from the
            batch's lowest to its highest value per band.
        mask: Bool (B, rows, columns), True = masked.
        names: B.
        bands: As in `shown_bands`.

    Returns:
        RGB picture.
    """
    views = _to_levels(pixels[:, shown_bands(bands, pixels.shape[1])])
    hidden = expand_mask(mask, (views.shape[-2], views.shape[-1])).unsqueeze(1)
    visible = torch.where(hidden, torch.full_like(views, HIDDEN_GREY), views)
    height_px, width_px = views.shape[-2:]
    row_px = HEADER_PX + height_px + GAP_PX
    picture = Image.new("RGB", (2 * width_px + GAP_PX, len(names) * row_px), "white")
    draw = ImageDraw.Draw(picture)
    columns = zip(names, _to_rgb(views), _to_rgb(visible), strict=True)
    for row, (name, view, rest) in enumerate(columns):
        draw.text((2, row * row_px + 2), _shortened(name, picture.width - 4, draw), fill="black")
        for left, tile in ((0, view), (width_px + GAP_PX, rest)):
            picture.paste(Image.fromarray(tile), (left, row * row_px + HEADER_PX))
    return picture


def _to_levels(pixels: Tensor) -> Tensor:
    """Gives uint8 of the same shape."""
    if pixels.dtype == torch.uint8:
        return pixels
    values = pixels.float()
    lowest, highest = values.amin((0, 2, 3), keepdim=True), values.amax((0, 2, 3), keepdim=True)
    is_flat = highest == lowest
    stretched: Tensor = (values - lowest) / torch.where(is_flat, 1, highest - lowest)
    return (stretched * 255).round().to(torch.uint8)


def _to_rgb(levels: Tensor) -> NDArray[np.uint8]:
    """uint8 (B, 1 or 3, H, W) to (B, H, W, 3)."""
    rgb: NDArray[np.uint8] = levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(rgb)


def _shortened(name: str, width_px: int, draw: ImageDraw.ImageDraw) -> str:
    """Cuts the beginning of a name that is too long; its end tells images apart."""
    text = name
    while len(text) > 1 and draw.textlength(text) > width_px:
        text = f"...{text.removeprefix('...')[1:]}"
    return text

"""Pictures of what a model reconstructs."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask
from ssl_swin.objectives.simmim import local_statistics
from ssl_swin.pixels import denormalize

COLUMNS = ("input", "masked", "prediction", "error")
HIDDEN_GREY = 118  # level of masked pixels in the second column
GAP_PX = 2
HEADER_PX = 16
STRETCH_PERCENTILES = (2, 98)
# Error colours from none to the largest: black, red, yellow, white.
_HEAT = np.array([[0, 0, 0], [180, 20, 30], [255, 190, 40], [255, 255, 255]], dtype=np.float64)
_HEAT_FULL = 0.5  # mean absolute error over channels, of values in [0, 1], that is drawn white


def predicted_images(
    prediction: Tensor, images: Tensor, normalize_target_window_px: int | None
) -> Tensor:
    """Brings a prediction from the space of the target back to that of the images.

    A locally normalised target is undone with the statistics of the true image, which a model does
    not know: such pictures show structure, and borrow brightness and contrast.

    Args:
        prediction: (B, C, H, W).
        images: Normalised (B, C, H, W).
        normalize_target_window_px: As given to `SimMIM`.
    """
    if normalize_target_window_px is None:
        return prediction.float()
    mean, deviation = local_statistics(images.float(), normalize_target_window_px)
    return (prediction.float() * deviation + mean).float()


def shown_bands(bands: Sequence[int] | None, channels: int) -> list[int]:
    """Chooses the bands that are drawn as red, green and blue, or the one that is drawn grey.

    Args:
        bands: From 0; None takes the first three, or the first where there are fewer.
        channels: How many there are.

    Raises:
        UserError: If `bands` are not one or three, or one is out of range.
    """
    if bands is None:
        return [0, 1, 2] if channels >= 3 else [0]
    if len(bands) not in (1, 3) or not all(0 <= band < channels for band in bands):
        raise UserError(
            f"bands to draw must be one or three from 0 to {channels - 1}, got {list(bands)} "
            "(callbacks.reconstructions.bands)"
        )
    return list(bands)


def reconstruction_grid(
    images: Tensor,
    mask: Tensor,
    predicted: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    bands: Sequence[int] | None = None,
    stretch: bool = False,
) -> Image.Image:
    """Draws one row per image: input, masked input, prediction pasted into it, error.

    Args:
        images: Normalised (B, C, H, W).
        mask: Bool (B, rows, columns), True = masked.
        predicted: (B, C, H, W), in the space of `images`.
        mean: Normalisation of `images`.
        std: Normalisation of `images`.
        bands: As in `shown_bands`; the error is of all.
        stretch: Whether each band's black and white are the 2nd and 98th percentile of its true
            values, in all columns, instead of 0 and 1.

    Returns:
        RGB picture.

    Raises:
        UserError: As in `shown_bands`.
    """
    bands = shown_bands(bands, images.shape[1])
    if stretch:
        mean, std = _stretched(images)
    true, painted = denormalize(images, mean, std), denormalize(predicted, mean, std)
    hidden = expand_mask(mask, (images.shape[-2], images.shape[-1])).unsqueeze(1)
    masked = torch.where(hidden, torch.full_like(true, HIDDEN_GREY), true)
    pasted = torch.where(hidden, painted, true)
    error = (pasted.float() - true.float()).abs().mean(dim=1) / 255
    tiles = [_to_rgb(pixels[:, bands]) for pixels in (true, masked, pasted)]
    return _lay_out([*tiles, _heat(error)])


def _stretched(images: Tensor) -> tuple[list[float], list[float]]:
    """The mean and deviation with which black becomes 0, and white 1."""
    bands = images.float().transpose(0, 1).flatten(1).cpu().numpy()
    black, white = np.percentile(bands, STRETCH_PERCENTILES, axis=1).astype(float)
    contrast = np.where(white > black, white - black, 1.0)
    return (-black / contrast).tolist(), (1 / contrast).tolist()


def _to_rgb(pixels: Tensor) -> np.ndarray:
    """uint8 (B, 1 or 3, H, W) to (B, H, W, 3)."""
    return pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()


def _heat(error: Tensor) -> np.ndarray:
    """Error (B, H, W) in [0, 1] to uint8 colours (B, H, W, 3)."""
    levels = np.clip(error.cpu().numpy() / _HEAT_FULL, 0, 1)
    stops = np.linspace(0, 1, len(_HEAT))
    colours = [np.interp(levels, stops, _HEAT[:, channel]) for channel in range(3)]
    return np.stack(colours, axis=-1).astype(np.uint8)


def _lay_out(columns: Sequence[np.ndarray]) -> Image.Image:
    num_rows, height, width = columns[0].shape[:3]
    size = (len(columns) * (width + GAP_PX), HEADER_PX + num_rows * (height + GAP_PX))
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for column, (title, tiles) in enumerate(zip(COLUMNS, columns, strict=True)):
        left = column * (width + GAP_PX)
        draw.text((left + 2, 2), title, fill="black")
        for row, tile in enumerate(tiles):
            picture.paste(Image.fromarray(tile), (left, HEADER_PX + row * (height + GAP_PX)))
    return picture

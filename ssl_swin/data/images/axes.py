"""Which axis of an array holds the channels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.images.pixel_values import Unsuitable

MOST_FEW_CHANNELS = 15  # as cameras and satellites have, not spectrometers
FIRST, LAST = 0, 2


class AmbiguousAxes(Unsuitable):
    """Two axes of an array may hold the channels."""


def channels_first(values: NDArray[Any], pixels: PixelFormat) -> NDArray[Any]:
    """Bring (H, W), (C, H, W) or (H, W, C) to (C, H, W).

    Args:
        values: The array.
        pixels: What is asked for; see `channel_axis`.

    Raises:
        Unsuitable: If it is not of two or three axes, or the channels cannot be told.
    """
    if values.ndim == 2:
        return values[None]
    if values.ndim != 3:
        raise Unsuitable(f"has shape {values.shape}; it takes (H, W), (C, H, W) or (H, W, C)")
    return np.moveaxis(values, channel_axis(values.shape, pixels), 0)


def channel_axis(shape: tuple[int, ...], pixels: PixelFormat) -> int:
    """Return which of three axes holds the channels: the first (0) or the last (2).

    It is what `channel_axis` says; else the one that is as long as `channels`, the first if both
    are. Where this says nothing, two axes of one length are height and width. Of unequal ones, the
    channels are few: at most 15, and fewer than the picture has pixels on a side.

    Args:
        shape: Lengths of the axes.
        pixels: What is asked for; `channels` says nothing where `bands` are chosen.

    Raises:
        AmbiguousAxes: If the channels may be either.
    """
    if pixels.channel_axis is not None:
        return FIRST if pixels.channel_axis == "first" else LAST
    asked = pixels.channels if pixels.bands is None else None
    for axis in (FIRST, LAST):
        if asked is not None and shape[axis] == asked:
            return axis
    first, middle, last = shape
    if (first == middle) != (middle == last):
        return LAST if first == middle else FIRST
    is_first, is_last = _are_few(first, (middle, last)), _are_few(last, (first, middle))
    if is_first != is_last:
        return FIRST if is_first else LAST
    of_last = "" if first == last else f"{last} "
    by_number = first != last and pixels.bands is None
    raise AmbiguousAxes(
        f"has shape {tuple(shape)}: {first} channels of {middle} x {last} px, or {of_last}of "
        f"{first} x {middle}; set {'data.channels, or ' * by_number}data.channel_axis=first or "
        "last (--channel-axis of ssl-swin pack and stats)"
    )


def _are_few(channels: int, size_px: tuple[int, int]) -> bool:
    return channels <= MOST_FEW_CHANNELS and channels < min(size_px)

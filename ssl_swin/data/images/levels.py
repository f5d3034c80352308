"""From an image's values as stored to the channels and the type that are asked for."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DTYPES = ("uint8", "uint16", "float32")
_FULL_SCALE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_LUMA = np.array([19595, 38470, 7471]) / 65536  # ITU-R 601, in the fractions that PIL uses


class Raster(NamedTuple):
    """An image as its file holds it."""

    levels: NDArray[Any]  # (C, H, W), any type
    has_alpha: bool = False  # whether the last channel is opacity


class Unsuitable(ValueError):
    """A whole image that is not what was asked for. Its message goes on from "the image NAME"."""


def native(levels: NDArray[Any]) -> NDArray[Any]:
    """Gives values in this machine's byte order; truth values become 0 and 255."""
    if levels.dtype == bool:
        return levels.astype(np.uint8) * np.uint8(255)
    return levels.astype(levels.dtype.newbyteorder("="), copy=False)


def as_channels(raster: Raster, channels: int) -> NDArray[Any]:
    """Gives (channels, H, W).

    Alpha is dropped where it is one channel too many, not blended in. Gray repeats to RGB; RGB
    becomes gray by its luma, as in PIL.

    Raises:
        Unsuitable: If the image has another number of channels.
    """
    levels, has_alpha = raster
    stored = len(levels)
    if stored == channels:
        return levels
    if has_alpha:
        levels = levels[:-1]
    if len(levels) == channels:
        return levels
    if (len(levels), channels) == (1, 3):
        return levels.repeat(3, axis=0)
    if (len(levels), channels) == (3, 1):
        return _luma(levels)
    raise Unsuitable(
        f"has {stored} channel{'s' * (stored > 1)}; data.channels is {channels} "
        f"(set data.channels={stored}, or convert the image)"
    )


def _luma(levels: NDArray[Any]) -> NDArray[Any]:
    luma = np.tensordot(_LUMA, levels.astype(np.float64), 1)[None]
    rounded = luma if levels.dtype.kind == "f" else np.floor(luma + 0.5)
    return rounded.astype(levels.dtype)


def as_dtype(levels: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Gives values of one of `DTYPES`.

    From 8 to 16 bits the range is kept (times 257); from 16 to 8 the upper bits are. As float32,
    uint8 and uint16 fill [0, 1], and all else keeps its values.

    Raises:
        Unsuitable: If the stored type has no range to map to an integer, is no real number, or a
            value is not finite.
    """
    stored = levels.dtype
    if stored == dtype:
        return _finite(levels)
    if stored.kind not in "uif":
        raise Unsuitable(f"holds {stored} values; an image is made of real numbers")
    if dtype == "float32":
        with np.errstate(over="ignore"):
            return _finite(levels.astype(np.float32) / np.float32(_FULL_SCALE.get(stored, 1)))
    if stored not in _FULL_SCALE:
        raise Unsuitable(
            f"holds {stored} values, which {dtype} cannot take; data.dtype is {dtype} "
            "(set data.dtype=float32)"
        )
    if dtype == "uint16":
        return levels.astype(np.uint16) * np.uint16(257)
    return (levels >> 8).astype(np.uint8)


def _finite(levels: NDArray[Any]) -> NDArray[Any]:
    if levels.dtype.kind == "f" and not np.isfinite(levels).all():
        raise Unsuitable("holds values that are not finite (NaN or infinite as float32)")
    return levels

"""From an image's values as stored to the channels and the type that are asked for."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DTYPES = ("uint8", "uint16", "float32")
_FULL_SCALE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_LUMA = np.array([19595, 38470, 7471]) / 65536  # ITU-R 601, in the fractions that PIL uses


class Raster(NamedTuple):
    """An image as its file holds it."""

    values: NDArray[Any]  # (C, H, W), any type
    has_alpha: bool = False  # whether the last channel is opacity


class Outline(NamedTuple):
    """What the header of a file says of its image."""

    shape: tuple[int, int, int]  # C, H, W; alpha is a channel
    dtype: str  # as numpy names it


class Unsuitable(ValueError):
    """A complete image that is not what was asked for; its message continues "the image NAME"."""


class TooLarge(Unsuitable):
    """An image that is larger than allowed, by its header."""


def native(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in this machine's byte order; truth values become 0 and 255."""
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def as_channels(raster: Raster, channels: int) -> NDArray[Any]:
    """Return values of shape (channels, H, W).

    Alpha is dropped where it is one channel too many, not blended in. Gray repeats to RGB; RGB
    becomes gray by its luma, as in PIL.

    Raises:
        Unsuitable: If the image has another number of channels.
    """
    values, has_alpha = raster
    stored = len(values)
    if stored == channels:
        return values
    if has_alpha:
        values = values[:-1]
    if len(values) == channels:
        return values
    if (len(values), channels) == (1, 3):
        return values.repeat(3, axis=0)
    if (len(values), channels) == (3, 1):
        return _luma(values)
    bands = str(list(range(channels))).replace(" ", "")
    choose = f", choose some by data.bands={bands}" if stored > channels else ""
    raise Unsuitable(
        f"has {stored} channel{'s' * (stored > 1)}; data.channels is {channels} "
        f"(set data.channels={stored}{choose}, or convert the image)"
    )


def _luma(values: NDArray[Any]) -> NDArray[Any]:
    luma = np.tensordot(_LUMA, values.astype(np.float64), 1)[None]
    rounded = luma if values.dtype.kind == "f" else np.floor(luma + 0.5)
    return rounded.astype(values.dtype)


def as_dtype(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return values of one of `DTYPES`.

    From 8 to 16 bits the range is kept (times 257); from 16 to 8 the upper bits are. As float32,
    uint8 and uint16 fill [0, 1], and all else keeps its values.

    Raises:
        Unsuitable: If the stored type has no range to map to an integer, is no real number, or a
            value is not finite.
    """
    stored = values.dtype
    if stored == dtype:
        return _finite(values)
    if stored.kind not in "uif":
        raise Unsuitable(f"holds {stored} values; an image is made of real numbers")
    if dtype == "float32":
        with np.errstate(over="ignore"):
            return _finite(values.astype(np.float32) / np.float32(_FULL_SCALE.get(stored, 1)))
    if stored not in _FULL_SCALE:
        raise Unsuitable(
            f"holds {stored} values, which {dtype} cannot take; data.dtype is {dtype} "
            "(set data.dtype=float32)"
        )
    if dtype == "uint16":
        return values.astype(np.uint16) * np.uint16(257)
    return (values >> 8).astype(np.uint8)


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Unsuitable("holds values that are not finite (NaN or infinite as float32)")
    return values

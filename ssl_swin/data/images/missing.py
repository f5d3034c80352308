"""Pixels without data: which they are, and what is put in their place."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.images.pixel_values import Unsuitable
from ssl_swin.plurals import counted

Truth = NDArray[np.bool_]

USUAL_NODATA = (-9999.0, -99999.0, -32768.0, -3.4028234663852886e38)  # often, marks of no data


def missing_values(values: NDArray[Any], nodata: tuple[float, ...]) -> Truth | None:
    """Return which values are no data: not finite as float32, or equal to a marker.

    Args:
        values: Values as they are stored, of any shape.
        nodata: Stored values that mark pixels without data.

    Returns:
        An array of the same shape; None if all values are data.
    """
    missing = None
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            missing = ~np.isfinite(values.astype(np.float32, copy=False))
    for marker in _in_dtype(nodata, values.dtype):
        found = values == marker
        missing = found if missing is None else missing | found
    return missing if missing is not None and missing.any() else None


def filled(values: NDArray[Any], missing: Truth | None, pixels: PixelFormat) -> NDArray[Any]:
    """Return values with `pixels.fill` in the place of those that are missing.

    Args:
        values: Values as they are stored, (C, H, W).
        missing: Which are missing; None for none.
        pixels: Has the value to put there.

    Raises:
        Unsuitable: If values are missing and there is no value to put there that fits.
    """
    if missing is None:
        return values
    if pixels.fill is None:
        raise Unsuitable(
            "holds values that are not finite (NaN or infinite as float32); set data.fill to what "
            "is to stand in their place, such as data.fill=0"
        )
    if isinstance(pixels.fill, tuple) and len(pixels.fill) != len(values):
        raise Unsuitable(
            f"has {counted(len(values), 'channel')}, and data.fill has "
            f"{counted(len(pixels.fill), 'value')}; give one number, or one for each channel"
        )
    fill = np.asarray(pixels.fill, dtype=np.float64).reshape(-1, 1, 1)
    fitting = fill.astype(values.dtype)
    if values.dtype.kind in "ui" and (fitting != fill).any():
        raise Unsuitable(
            f"holds {values.dtype} values, which data.fill={pixels.fill} is not one of; it is a "
            "value as the file stores it"
        )
    return np.where(missing, fitting, values)


def _in_dtype(nodata: tuple[float, ...], dtype: np.dtype[Any]) -> list[Any]:
    """Return the markers that a type can hold, as values of it."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return [dtype.type(marker) for marker in nodata]
    if dtype.kind not in "ui":
        return []
    limits = np.iinfo(dtype)
    whole = [int(marker) for marker in nodata if np.isfinite(marker) and marker == int(marker)]
    return [dtype.type(marker) for marker in whole if limits.min <= marker <= limits.max]

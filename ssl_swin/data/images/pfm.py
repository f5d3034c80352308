"""Reading PFM: floats of one channel or of three."""

import re
from typing import NamedTuple

import numpy as np

from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.images.pixel_values import Outline, Raster

_HEADER = re.compile(rb"(P[fF])\s+(\d{1,10})\s+(\d{1,10})\s+([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s")
_VALUE_BYTES = 4


class _Header(NamedTuple):
    shape: tuple[int, int, int]  # H, W, C, as the values lie
    byte_order: str
    length: int  # of the header


def is_pfm(data: bytes) -> bool:
    """Return whether a file begins as a PFM does."""
    return _HEADER.match(data[:100]) is not None


def pfm_outline(data: bytes, pixels: PixelFormat) -> Outline:
    """Read (C, H, W) from the header.

    Raises:
        Unsuitable: If the image is larger than allowed.
        ValueError: If the file ends before its values do.
    """
    (height_px, width_px, channels), _, length = _header(data)
    num_bytes = height_px * width_px * channels * _VALUE_BYTES
    pixels.check_size((channels, height_px, width_px), num_bytes)
    if not num_bytes or len(data) - length < num_bytes:
        raise ValueError("the file ends before its values do")
    return Outline((channels, height_px, width_px), "float32")


def read_pfm(data: bytes, pixels: PixelFormat) -> Raster:
    """Read the values as they are; the scale in the header, a unit, has no effect."""
    pfm_outline(data, pixels)
    shape, byte_order, length = _header(data)
    values = np.frombuffer(data, f"{byte_order}f4", count=int(np.prod(shape)), offset=length)
    upwards = values.reshape(shape).astype(np.float32)  # the first row is the lowest
    return Raster(upwards[::-1].transpose(2, 0, 1).copy())


def _header(data: bytes) -> _Header:
    found = _HEADER.match(data[:100])
    if found is None:
        raise ValueError("it has no header of a PFM")
    kind, width_px, height_px, scale = found.groups()
    channels = 3 if kind == b"PF" else 1
    byte_order = "<" if scale.startswith(b"-") else ">"
    return _Header((int(height_px), int(width_px), channels), byte_order, found.end())

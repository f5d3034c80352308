"""From the bytes of an image file to raw pixels."""

import math
import re
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_swin.data.file_types import extension_of_content
from ssl_swin.data.images.arrays import array_outline, read_array
from ssl_swin.data.images.axes import AmbiguousAxes
from ssl_swin.data.images.codecs import (
    exif_orientation,
    is_deep_png,
    pil_outline,
    read_deep_png,
    read_jpeg,
    read_with_pil,
)
from ssl_swin.data.images.missing import Truth, filled, missing_values
from ssl_swin.data.images.orientation import UPRIGHT, turned
from ssl_swin.data.images.pfm import is_pfm, pfm_outline, read_pfm
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.images.pixel_values import (
    DTYPES,
    Outline,
    Raster,
    Unsuitable,
    as_channels,
    as_dtype,
)
from ssl_swin.data.images.tiff import gdal_nodata, read_tiff, tiff_orientation, tiff_outline
from ssl_swin.errors import UserError

AS_STORED = PixelFormat()
_ARRAYS = ("npy", "npz")


class ImageInfo(NamedTuple):
    """What an image file holds, before any conversion."""

    height_px: int
    width_px: int
    channels: int  # colours and alpha
    dtype: str  # uint8, uint16, float32, int16, ...


class MarkedPixels(NamedTuple):
    """A decoded image, and which of its values are no data."""

    values: NDArray[Any]  # (C, H, W)
    missing: Truth | None  # of the same shape; None if all values are data


def decode_image(data: bytes, pixels: PixelFormat, *, name: str) -> Tensor:
    """Decode an image file to the channels and the type that are asked for.

    The content decides how a file is read, not its name:

    - JPEG through torchvision, bit-equal to PIL; as gray, the luma that it stores.
    - PNG, WebP, GIF (first frame), BMP, PPM, PFM and what else PIL opens: palettes and CMYK as RGB.
      16 bits are kept of PNG and of gray PPM; of colour PPM, the upper 8.
    - TIFF: the page that is not marked as a smaller copy. 8 or more bits, integer or float, any
      number of channels, interleaved, planar or one per page; palettes, CMYK, YCbCr and fewer bits
      as PIL reads them; other colours are refused.
    - .npy and .npz (one array, or one called "image" or "arr_0"): (H, W), (C, H, W) or (H, W, C),
      see `axes.channel_axis`.

    Channels: gray repeats to RGB, RGB becomes gray by its luma. Alpha is kept where it is asked for
    (4 channels of RGBA, 2 of gray) and else dropped, not blended in. Of chosen bands, nothing is
    converted.

    Type: uint8 to uint16 is times 257, uint16 to uint8 its upper 8 bits; both as float32 fill
    [0, 1]. Other integers and floats are decoded as float32 only, and keep their values.

    Args:
        data: The contents of the file.
        pixels: What is asked for.
        name: Name of the image, for messages.

    Returns:
        (C, H, W). Pictures have channels-last strides.

    Raises:
        UserError: If the bytes are not a complete image, it is larger than allowed, its channels or
            its type do not fit what is asked for, a value is missing and no fill is given, or the
            compression of a TIFF needs imagecodecs.
    """
    try:
        raster, missing = _read(data, pixels)
        whole = raster._replace(values=filled(raster.values, missing, pixels))
        return torch.from_numpy(_converted(whole, pixels))
    except Exception as error:
        raise UserError(_complaint(error, name)) from error


def decode_marked(data: bytes, pixels: PixelFormat, *, name: str) -> MarkedPixels:
    """Decode an image, and mark what is no data instead of replacing or refusing it.

    Args:
        data: The contents of the file.
        pixels: What is asked for; `fill` has no effect.
        name: Name of the image, for messages.

    Raises:
        UserError: As `decode_image`.
    """
    try:
        raster, missing = _read(data, pixels)
        if missing is None:
            return MarkedPixels(_converted(raster, pixels), None)
        zeroed = raster._replace(
            values=np.where(missing, raster.values.dtype.type(0), raster.values)
        )
        values = _converted(zeroed, pixels)
        if len(values) != len(missing):
            missing = np.broadcast_to(missing.any(axis=0), values.shape)
        return MarkedPixels(values, missing)
    except Exception as error:
        raise UserError(_complaint(error, name)) from error


def probe_image(data: bytes, pixels: PixelFormat = AS_STORED) -> ImageInfo:
    """Return what an image file holds, by its header; `decode_image` may convert.

    Args:
        data: The contents of the file.
        pixels: Says where the channels of an array are, and how large an image may be.

    Raises:
        AmbiguousAxes: If two axes of an array may be the channels.
        ValueError: With the reason, if the header is damaged, of no known kind, or that of an image
            that is not read.
    """
    kind = extension_of_content(data)
    try:
        shape, dtype = _outline(data, kind, pixels)
    except AmbiguousAxes:
        raise
    except Exception as error:
        raise ValueError(_reason(error)) from error
    channels, height_px, width_px = shape
    return ImageInfo(height_px, width_px, channels, dtype)


def orientation_of(data: bytes) -> int:
    """Return how an image asks to be turned, as EXIF counts: 1 is upright.

    Args:
        data: The contents of the file. What cannot be read is upright.
    """
    kind = extension_of_content(data)
    try:
        if kind in _ARRAYS:
            return UPRIGHT
        return tiff_orientation(data) if kind == "tif" else exif_orientation(data)
    except Exception:  # decoders raise almost anything on a damaged file
        return UPRIGHT


def named_nodata(data: bytes) -> str:
    """Return the number that an image itself names as its mark of no data; empty for none.

    Args:
        data: The contents of the file: a TIFF with GDAL's tag. NaN need not be named.
    """
    try:
        named = gdal_nodata(data) if extension_of_content(data) == "tif" else ""
        return named if math.isfinite(float(named or "nan")) else ""
    except Exception:  # decoders raise almost anything on a damaged file
        return ""


def _outline(data: bytes, kind: str, pixels: PixelFormat) -> Outline:
    if kind in _ARRAYS:
        return array_outline(data, pixels)
    if is_pfm(data):
        return pfm_outline(data, pixels)
    return (tiff_outline if kind == "tif" else pil_outline)(data, pixels)


def _read(data: bytes, pixels: PixelFormat) -> tuple[Raster, Truth | None]:
    """Read the bands that are chosen, turned if asked for, and mark what is no data."""
    raster = _stored(data, pixels)
    if pixels.bands is not None:
        raster = Raster(_chosen_bands(raster.values, pixels.bands))
    if pixels.exif_rotation and (orientation := orientation_of(data)) != UPRIGHT:
        raster = raster._replace(values=turned(raster.values, orientation))
    return raster, missing_values(raster.values, pixels.nodata)


def _stored(data: bytes, pixels: PixelFormat) -> Raster:
    kind = extension_of_content(data)
    if kind == "jpg":
        return read_jpeg(data, pixels)
    if kind == "png" and is_deep_png(data):
        return read_deep_png(data, pixels)
    if kind == "tif":
        return read_tiff(data, pixels)
    if kind in _ARRAYS:
        return read_array(data, pixels)
    if is_pfm(data):
        return read_pfm(data, pixels)
    return read_with_pil(data, pixels)


def _chosen_bands(values: NDArray[Any], bands: tuple[int, ...]) -> NDArray[Any]:
    if max(bands) >= len(values):
        raise Unsuitable(
            f"has {len(values)} channel{'s' * (len(values) > 1)}, 0 to {len(values) - 1}; "
            f"data.bands is {list(bands)}"
        )
    return values[list(bands)]


def _converted(raster: Raster, pixels: PixelFormat) -> NDArray[Any]:
    values = raster.values
    if pixels.channels is not None:
        values = as_channels(raster, pixels.channels)
    own = values.dtype.name if values.dtype.name in DTYPES else "float32"
    return as_dtype(values, pixels.dtype or own)


def _complaint(error: Exception, name: str) -> str:
    """Decoders raise almost anything on a file that is damaged: all of it means the same."""
    if isinstance(error, Unsuitable):
        return f"the image {name} {error}"
    return f"cannot decode the image {name}: {_reason(error)} (remove it, or pack the set anew)"


def _reason(error: Exception) -> str:
    """The message without places in source code or memory."""
    text = re.sub(r"decode_\w+, \S+, | <_io\.BytesIO[^>]*>", "", str(error))
    return text.partition("\n")[0] or type(error).__name__

"""From the bytes of an image file to raw pixels."""

import re
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_swin.data.file_types import extension_of_content
from ssl_swin.data.images.arrays import probe_tiff, read_array, read_tiff
from ssl_swin.data.images.codecs import (
    JPEG_MODES,
    is_deep_png,
    probe_with_pil,
    read_deep_png,
    read_jpeg,
    read_with_pil,
)
from ssl_swin.data.images.pixel_values import DTYPES, Raster, Unsuitable, as_channels, as_dtype
from ssl_swin.errors import UserError


class ImageInfo(NamedTuple):
    """What an image file holds, before any conversion."""

    height_px: int
    width_px: int
    channels: int  # colours and alpha
    dtype: str  # uint8, uint16, float32, int16, ...


def decode_image(data: bytes, *, channels: int, dtype: str, name: str) -> Tensor:
    """Decode an image file to the channels and the type that are asked for.

    The content decides how a file is read, not its name:

    - JPEG through torchvision, bit-equal to PIL; as gray, the luma that it stores.
    - PNG, WebP, GIF (first frame), BMP, PPM and what else PIL opens: palettes and CMYK as RGB. 16
      bits are kept of PNG and of gray PPM; of colour PPM, the upper 8.
    - TIFF: 8 or more bits, integer or float, any number of channels, interleaved, planar or one
      per page; palettes, CMYK, YCbCr and fewer bits as PIL reads them.
    - .npy and .npz (one array, or one called "image" or "arr_0"): (H, W), (C, H, W) or (H, W, C),
      where the axis as long as `channels` is C, and the first one if both are.

    Channels: gray repeats to RGB, RGB becomes gray by its luma. Alpha is kept where it is asked for
    (4 channels of RGBA, 2 of gray) and else dropped, not blended in.

    Type: uint8 to uint16 is times 257, uint16 to uint8 its upper 8 bits; both as float32 fill
    [0, 1]. Other integers and floats are decoded as float32 only, and keep their values.

    Args:
        data: The contents of the file.
        channels: Number of channels to return.
        dtype: uint8, uint16 or float32.
        name: Name of the image, for messages.

    Returns:
        (C, H, W) of that type. Pictures have channels-last strides.

    Raises:
        UserError: If the bytes are not a complete image, its channels or its type do not fit what
            is asked for, a value is not finite, or the compression of a TIFF needs imagecodecs.
    """
    if dtype not in DTYPES:
        raise UserError(f"data.dtype must be one of {', '.join(DTYPES)}; it is {dtype}")
    try:
        values = as_channels(_read(data, channels), channels)
        return torch.from_numpy(as_dtype(values, dtype))
    except Exception as error:
        raise UserError(_complaint(error, name)) from error


def probe_image(data: bytes) -> ImageInfo:
    """Return what an image file holds, by its header where it has one; `decode_image` may convert.

    Raises:
        ValueError: With the reason, if the header is damaged or of no known kind.
    """
    kind = extension_of_content(data)
    try:
        if kind in ("npy", "npz"):
            values = read_array(data, channels=None).values
            shape, dtype = values.shape, values.dtype.name
        else:
            shape, dtype = (probe_tiff if kind == "tif" else probe_with_pil)(data)
    except Exception as error:
        raise ValueError(_reason(error)) from error
    channels, height_px, width_px = shape
    return ImageInfo(height_px, width_px, channels, dtype)


def _read(data: bytes, channels: int) -> Raster:
    kind = extension_of_content(data)
    if kind == "jpg" and channels in JPEG_MODES:
        return read_jpeg(data, channels)
    if kind == "png" and is_deep_png(data):
        return read_deep_png(data)
    if kind == "tif":
        return read_tiff(data, channels)
    if kind in ("npy", "npz"):
        return read_array(data, channels)
    return read_with_pil(data)


def _complaint(error: Exception, name: str) -> str:
    """Decoders raise almost anything on a file that is damaged: all of it means the same."""
    if isinstance(error, Unsuitable):
        return f"the image {name} {error}"
    return f"cannot decode the image {name}: {_reason(error)} (remove it, or pack the set anew)"


def _reason(error: Exception) -> str:
    """The message without places in source code or memory."""
    text = re.sub(r"decode_\w+, \S+, | <_io\.BytesIO[^>]*>", "", str(error))
    return text.partition("\n")[0] or type(error).__name__

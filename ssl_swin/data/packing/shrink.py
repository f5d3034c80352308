"""Making images smaller when they are packed."""

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ssl_swin.data.encoded import IMAGE, EncodedSample, Member
from ssl_swin.data.file_types import extension_of_content
from ssl_swin.data.images.decode import ImageInfo, decode_image
from ssl_swin.data.images.pixel_values import DTYPES

JPEG_QUALITY = 92

_LOSSY = ("jpg", "webp")
_MOST_PNG_CHANNELS = 4  # RGB and alpha


def shrink_image(encoded: EncodedSample, info: ImageInfo, max_short_side_px: int) -> EncodedSample:
    """Scale an image down until its shorter side is `max_short_side_px`.

    The filter is a triangle as wide as the scale asks for (antialiased bilinear): it never leaves
    the range of the values. Alpha is a channel like the others. Of an array's axes, the channels
    are those that `probe_image` takes for them.

    Args:
        encoded: The sample, whose image can be decoded.
        info: Properties of the image, from `probe_image`.
        max_short_side_px: Images with a shorter side up to this stay as they are, to the byte.

    Returns:
        8-bit gray or RGB that came as JPEG or WebP as JPEG of quality 92, other 8-bit images of up
        to 4 channels as PNG, all else as .npy (C, H, W): uint8 and uint16 as such, the rest as
        float32.

    Raises:
        UserError: If it cannot be decoded.
    """
    short_side_px = min(info.height_px, info.width_px)
    if short_side_px <= max_short_side_px:
        return encoded
    pixels = decode_stored(encoded, info)
    scale = max_short_side_px / short_side_px
    small = _resize(pixels, round(info.height_px * scale), round(info.width_px * scale)).numpy()
    if small.dtype != np.uint8 or len(small) > _MOST_PNG_CHANNELS:
        return encoded.with_member(IMAGE, Member(_to_npy(small), "npy"))
    if extension_of_content(encoded.data) in _LOSSY and len(small) in (1, 3):
        jpeg = _encode(small, "JPEG", quality=JPEG_QUALITY)
        return encoded.with_member(IMAGE, Member(jpeg, "jpg"))
    return encoded.with_member(IMAGE, Member(_encode(small, "PNG"), "png"))


def decode_stored(encoded: EncodedSample, info: ImageInfo) -> Tensor:
    """Decode all channels of an image, in its own type or else as float32: (C, H, W).

    Raises:
        UserError: If it cannot be decoded.
    """
    dtype = info.dtype if info.dtype in DTYPES else "float32"
    return decode_image(encoded.data, channels=info.channels, dtype=dtype, name=encoded.name)


def _resize(pixels: Tensor, height_px: int, width_px: int) -> Tensor:
    deep = pixels.float() if pixels.dtype == torch.uint16 else pixels
    small = interpolate(deep[None], (height_px, width_px), mode="bilinear", antialias=True)[0]
    return small.round().to(torch.uint16) if pixels.dtype == torch.uint16 else small


def _encode(values: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    content = io.BytesIO()
    array = values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))
    Image.fromarray(array).save(content, kind, **options)
    return content.getvalue()


def _to_npy(values: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()

"""Making images smaller when they are packed."""

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import Tensor
from torch.nn.functional import interpolate

from ssl_swin.data.encoded import IMAGE, EncodedSample, Member
from ssl_swin.data.file_types import extension_of_content
from ssl_swin.data.images.decode import ImageInfo, decode_image, named_nodata, orientation_of
from ssl_swin.data.images.orientation import UPRIGHT
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.packing.shrink_members import with_shrunk_members
from ssl_swin.errors import UserError

JPEG_QUALITY = 92

_LOSSY = ("jpg", "webp")
_MOST_PNG_CHANNELS = 4  # RGB and alpha


def shrink_image(
    encoded: EncodedSample,
    info: ImageInfo,
    max_short_side_px: int,
    *,
    pixels: PixelFormat,
    jpeg_quality: int = JPEG_QUALITY,
) -> EncodedSample:
    """Scale an image down until its shorter side is `max_short_side_px`.

    The filter is a triangle as wide as the scale asks for (antialiased bilinear): it never leaves
    the range of the values. Alpha is a channel like the others. An EXIF orientation is kept.

    Args:
        encoded: The sample, whose image can be decoded.
        info: Properties of the image, from `probe_image` with the same `pixels`.
        max_short_side_px: Images with a shorter side up to this stay as they are, to the byte.
        pixels: How the image is read, and what takes the place of pixels without data.
        jpeg_quality: Quality of JPEG files, from 1 to 100.

    Returns:
        8-bit gray or RGB that came as JPEG or WebP as JPEG, other 8-bit images of up to 4 channels
        as PNG, all else as .npy (C, H, W), or (H, W, C) if `pixels.channel_axis` is "last": uint8
        and uint16 as such, the rest as float32. Mask and boxes are scaled with it. A file
        that would not become smaller by this stays as it is, to the byte, as does one that would
        lose its orientation, or has one and a mask or boxes, which may be drawn on either.

    Raises:
        UserError: If it cannot be decoded, or names a mark of no data that `pixels` does not.
    """
    short_side_px = min(info.height_px, info.width_px)
    if short_side_px <= max_short_side_px:
        return encoded
    if len(encoded.members) > 1 and orientation_of(encoded.data) != UPRIGHT:
        return encoded
    _check_nodata(encoded, pixels)
    values = decode_image(encoded.data, pixels, name=encoded.name)
    scale = max_short_side_px / short_side_px
    new_px = round(info.height_px * scale), round(info.width_px * scale)
    small = _resize(values, *new_px).numpy()
    member = _encoded(small, encoded.data, jpeg_quality, pixels.channel_axis == "last")
    if member is None or len(member.data) >= len(encoded.data):
        return encoded
    size_px = info.height_px, info.width_px
    return with_shrunk_members(encoded.with_member(IMAGE, member), size_px, new_px)


def _check_nodata(encoded: EncodedSample, pixels: PixelFormat) -> None:
    named = named_nodata(encoded.data)
    if named and not pixels.nodata:
        raise UserError(
            f"the image {encoded.name} says that {named} marks pixels without data (GDAL_NODATA), "
            f"which scaling would mix with others: add --nodata={named} --fill VALUE"
        )


def _resize(pixels: Tensor, height_px: int, width_px: int) -> Tensor:
    deep = pixels.float() if pixels.dtype == torch.uint16 else pixels
    small = interpolate(deep[None], (height_px, width_px), mode="bilinear", antialias=True)[0]
    return small.round().to(torch.uint16) if pixels.dtype == torch.uint16 else small


def _encoded(
    small: NDArray[Any], original: bytes, jpeg_quality: int, channels_last: bool
) -> Member | None:
    """Encode an image by its kind; None if it would lose its orientation."""
    orientation = orientation_of(original)
    if small.dtype != np.uint8 or len(small) > _MOST_PNG_CHANNELS:
        array = np.ascontiguousarray(np.moveaxis(small, 0, -1)) if channels_last else small
        return Member(_to_npy(array), "npy") if orientation == UPRIGHT else None
    if extension_of_content(original) in _LOSSY and len(small) in (1, 3):
        return Member(_to_picture(small, "JPEG", orientation, quality=jpeg_quality), "jpg")
    return Member(_to_picture(small, "PNG", orientation), "png")


def _to_picture(values: NDArray[np.uint8], kind: str, orientation: int, **options: Any) -> bytes:
    if orientation != UPRIGHT:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        options["exif"] = exif
    content = io.BytesIO()
    array = values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))
    Image.fromarray(array).save(content, kind, **options)
    return content.getvalue()


def _to_npy(values: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()

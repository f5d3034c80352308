"""Decoders of common image files: JPEG, PNG, and what else PIL opens.

torchvision's JPEG decoder is the fastest that is bit-equal to PIL; its PNG decoder keeps 16 bits.
Version 0.29 deprecates both in favour of TorchCodec, by a warning that Python does not show.
"""

import io
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, decode_png

import ssl_swin.data.pillow_formats  # noqa: F401 - it registers Pillow's plugins
from ssl_swin.data.images.orientation import known
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.images.pixel_values import Outline, Raster, Unsuitable, native

_JPEG_MODES = {1: ImageReadMode.GRAY, 3: ImageReadMode.RGB}
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by the header's colour type, where it is not a palette
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of a frame's header
_UNREAD_MODES = ("LAB",)  # of colours that PIL does not make RGB of


def read_jpeg(data: bytes, pixels: PixelFormat) -> Raster:
    """Read a JPEG as gray (the luma that it stores) or RGB.

    The strides are channels-last, with which resizing is twice as fast.
    """
    frame = _jpeg_frame(data)
    if frame is None:
        return read_with_pil(data, pixels)
    height_px, width_px, stored = frame
    natural = 1 if stored == 1 else 3
    asked = pixels.channels if pixels.bands is None else None
    channels = asked if asked in _JPEG_MODES else natural
    assert channels is not None
    pixels.check_size((channels, height_px, width_px), channels * height_px * width_px)
    try:
        decoded: Tensor = decode_jpeg(_encoded(data), mode=_JPEG_MODES[channels])
    except RuntimeError:
        return read_with_pil(data, pixels)
    return Raster(decoded.numpy())


def is_deep_png(data: bytes) -> bool:
    """Return whether a PNG has 16 bits a channel, of which PIL would keep 8 in colour."""
    return data[24:25] == b"\x10"


def read_deep_png(data: bytes, pixels: PixelFormat) -> Raster:
    """Read a PNG of 16 bits."""
    _check(_deep_png_outline(data), pixels)
    decoded: Tensor = decode_png(_encoded(data), mode=ImageReadMode.UNCHANGED)
    return Raster(decoded.numpy(), has_alpha=len(decoded) in (2, 4))


def read_with_pil(data: bytes, pixels: PixelFormat, page: int = 0) -> Raster:
    """Read one frame of whatever PIL opens: gray or RGB, with alpha where there is one."""
    with _opened(data, page) as image:
        _check(_outline(image), pixels)
        if _is_deep(image):
            values = np.array(image)
            is_cast = image.format == "PPM" and image.mode == "I"  # PIL widens 16 bits to 32
            return Raster(native(values.astype(np.uint16) if is_cast else values)[None])
        mode = _natural_mode(image)
        values = np.array(image.convert(mode))
        values = values.reshape(*values.shape[:2], -1).transpose(2, 0, 1)
        return Raster(values, has_alpha=mode.endswith("A"))


def pil_outline(data: bytes, pixels: PixelFormat, page: int = 0) -> Outline:
    """Read (C, H, W) and the type of a picture from its header.

    Raises:
        Unsuitable: If it is larger than allowed, or of a kind that is not read.
    """
    with _opened(data, page) as image:
        if image.format == "PNG" and is_deep_png(data):
            return _check(_deep_png_outline(data), pixels)
        return _check(_outline(image), pixels)


def exif_orientation(data: bytes) -> int:
    """Return the orientation of an image file that PIL opens, 1 where none is given."""
    with _opened(data) as image:
        return known(image.getexif().get(ExifTags.Base.Orientation))


def _outline(image: Image.Image) -> Outline:
    if image.mode in _UNREAD_MODES:
        raise Unsuitable(f"holds colours of the kind {image.mode}, which are not read; make it RGB")
    if not _is_deep(image):
        return Outline((len(_natural_mode(image)), image.height, image.width), "uint8")
    dtype = {"I": "int32", "F": "float32"}.get(image.mode, "uint16")
    if image.format == "PPM" and image.mode == "I":
        dtype = "uint16"
    return Outline((1, image.height, image.width), dtype)


def _deep_png_outline(data: bytes) -> Outline:
    width_px, height_px = struct.unpack(">II", data[16:24])
    return Outline((_PNG_CHANNELS[data[25]], height_px, width_px), "uint16")


def _check(outline: Outline, pixels: PixelFormat) -> Outline:
    num_bytes = math.prod(outline.shape) * np.dtype(outline.dtype).itemsize
    pixels.check_size(outline.shape, num_bytes)
    return outline


def _jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """Return height, width and channels by the frame's header of a JPEG; None without one."""
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fills a gap
            place += 1
        elif marker in _JPEG_FRAMES:
            height_px, width_px, channels = struct.unpack_from(">HHB", data, place + 5)
            return height_px, width_px, channels
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _encoded(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _natural_mode(image: Image.Image) -> str:
    colours = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return colours + "A" * image.has_transparency_data


@contextmanager
def _opened(data: bytes, page: int = 0) -> Iterator[Image.Image]:
    """Open a picture with the limit of `PixelFormat` in the place of PIL's own."""
    with _without_pils_limit, Image.open(io.BytesIO(data)) as image:
        if page:
            image.seek(page)
        yield image


class _WithoutPilsLimit:
    """Lifts PIL's limit of the whole process while any thread is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._num_inside == 0:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._num_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0:
                Image.MAX_IMAGE_PIXELS = self._limit


_without_pils_limit = _WithoutPilsLimit()

"""Decoders of common image files: JPEG, PNG, and what else PIL opens.

torchvision's JPEG decoder is the fastest that is bit-equal to PIL; its PNG decoder keeps 16 bits.
Version 0.29 deprecates both in favour of TorchCodec, by a warning that Python does not show.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, decode_png

import ssl_swin.data.pillow_formats  # noqa: F401 - it registers Pillow's plugins
from ssl_swin.data.images.pixel_values import Raster, native

JPEG_MODES = {1: ImageReadMode.GRAY, 3: ImageReadMode.RGB}
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by the header's colour type, where it is not a palette


def read_jpeg(data: bytes, channels: int) -> Raster:
    """Read a JPEG as gray (the luma that it stores) or RGB, one of `JPEG_MODES`.

    The strides are channels-last, with which resizing is twice as fast.
    """
    try:
        pixels: Tensor = decode_jpeg(_encoded(data), mode=JPEG_MODES[channels])
    except RuntimeError:
        return read_with_pil(data)
    return Raster(pixels.numpy())


def is_deep_png(data: bytes) -> bool:
    """Return whether a PNG has 16 bits a channel, of which PIL would keep 8 in colour."""
    return data[24:25] == b"\x10"


def read_deep_png(data: bytes) -> Raster:
    """Read a PNG of 16 bits."""
    pixels: Tensor = decode_png(_encoded(data), mode=ImageReadMode.UNCHANGED)
    return Raster(pixels.numpy(), has_alpha=len(pixels) in (2, 4))


def read_with_pil(data: bytes) -> Raster:
    """Read the first frame of whatever PIL opens: gray or RGB, with alpha where there is one."""
    image = Image.open(io.BytesIO(data))
    if _is_deep(image):
        values = np.array(image)
        return Raster(native(values.astype(np.uint16) if image.format == "PPM" else values)[None])
    mode = _natural_mode(image)
    values = np.array(image.convert(mode))
    values = values.reshape(*values.shape[:2], -1).transpose(2, 0, 1)
    return Raster(values, has_alpha=mode.endswith("A"))


def probe_with_pil(data: bytes) -> tuple[tuple[int, int, int], str]:
    """Read (C, H, W) and the type of a picture from its header."""
    image = Image.open(io.BytesIO(data))
    if image.format == "PNG" and is_deep_png(data):
        return (_PNG_CHANNELS[data[25]], image.height, image.width), "uint16"
    if _is_deep(image):
        dtype = {"I": "int32", "F": "float32"}.get(image.mode, "uint16")
        return (1, image.height, image.width), "uint16" if image.format == "PPM" else dtype
    return (len(_natural_mode(image)), image.height, image.width), "uint8"


def _encoded(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _natural_mode(image: Image.Image) -> str:
    colours = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return colours + "A" * image.has_transparency_data

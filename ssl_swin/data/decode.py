"""From the bytes of an image file to raw pixels (L1)."""

import io
import re

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from ssl_swin.errors import UserError

_JPEG_START = b"\xff\xd8"
_MODES = {1: (ImageReadMode.GRAY, "L"), 3: (ImageReadMode.RGB, "RGB")}


def decode_image(data: bytes, in_chans: int, name: str) -> Tensor:
    """Decodes an image file to gray or RGB.

    JPEG goes through torchvision, which is bit-equal to PIL and faster; a colour JPEG's gray is the
    luma that the file stores. Anything else goes through PIL; of 16 bits the upper eight are kept.

    Args:
        data: Contents of the file.
        in_chans: 1 for gray, 3 for RGB.
        name: For messages.

    Returns:
        uint8 (C, H, W). JPEGs keep channels-last strides, with which resizing is twice as fast.

    Raises:
        UserError: If the bytes are not a whole image, its values have no 8-bit meaning, or the
            number of channels is neither 1 nor 3.
    """
    if in_chans not in _MODES:
        raise UserError(f"image files decode to 1 or 3 channels; data.in_chans is {in_chans}")
    torch_mode, pil_mode = _MODES[in_chans]
    try:
        if data.startswith(_JPEG_START):
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            decoded: Tensor = decode_jpeg(encoded, mode=torch_mode)
            return decoded
        return _from_pil(Image.open(io.BytesIO(data)), pil_mode)
    except Exception as error:  # PIL's plugins raise almost anything on a file that is damaged
        raise UserError(
            f"cannot decode the image {name}: {_reason(error)} (remove it, or pack the set anew)"
        ) from error


def _reason(error: Exception) -> str:
    """The message without places in source code or memory."""
    text = re.sub(r"decode_jpeg, \S+, | <_io\.BytesIO[^>]*>", "", str(error))
    return text.partition("\n")[0] or type(error).__name__


def _from_pil(image: Image.Image, mode: str) -> Tensor:
    if image.mode in ("I", "F"):
        raise ValueError("it holds 32-bit values of no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):  # PIL would clip to 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    array = np.array(image.convert(mode))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)

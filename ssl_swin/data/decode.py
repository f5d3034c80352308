"""From the bytes of an image file to raw pixels (L1)."""

import io

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

    JPEG goes through torchvision, which is bit-equal to PIL and faster; anything else through PIL.

    Args:
        data: Contents of the file.
        in_chans: 1 for gray, 3 for RGB.
        name: For messages.

    Returns:
        uint8 (C, H, W). JPEGs keep channels-last strides, with which resizing is twice as fast.

    Raises:
        UserError: If the bytes are not an image, or the number of channels is neither 1 nor 3.
    """
    if in_chans not in _MODES:
        raise UserError(f"image files decode to 1 or 3 channels; data.in_chans is {in_chans}")
    torch_mode, pil_mode = _MODES[in_chans]
    try:
        if data.startswith(_JPEG_START):
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            decoded: Tensor = decode_jpeg(encoded, mode=torch_mode)
            return decoded
        return _from_pil(Image.open(io.BytesIO(data)).convert(pil_mode))
    except (OSError, RuntimeError, ValueError, SyntaxError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot decode the image {name}: {reason} (remove it, or pack the set anew)"
        ) from error


def _from_pil(image: Image.Image) -> Tensor:
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)

"""Scaling the mask and the boxes of a sample with its image when it is packed."""

import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_swin.data.box_lists import BOXES, decode_boxes
from ssl_swin.data.decoding import check_mask_size, decode_mask
from ssl_swin.data.encoded import MASK, EncodedSample, Member
from ssl_swin.data.geometry import Size, nearest_pixels
from ssl_swin.data.rle import decode_rle, encode_rle


def with_shrunk_members(encoded: EncodedSample, size_px: Size, new_px: Size) -> EncodedSample:
    """Return a sample whose mask and boxes fit its image after that was scaled.

    As in training: boxes and areas are multiplied, and of masks each new pixel takes what lies at
    its centre, so that no value comes up that was not there.

    Args:
        encoded: The sample; what it holds besides a mask and boxes stays as it is.
        size_px: Height and width of the image before.
        new_px: Height and width of the image now.

    Raises:
        UserError: If the mask or the boxes cannot be decoded, or the mask has another size.
    """
    if MASK in encoded.members:
        check_mask_size(decode_mask(encoded), size_px, encoded.name)
        data = _shrunk_mask(encoded.members[MASK].data, size_px, new_px)
        encoded = encoded.with_member(MASK, encoded.members[MASK]._replace(data=data))
    if BOXES in encoded.members:
        decode_boxes(encoded, size_px)  # which refuses what cannot be scaled
        content = _shrunk_boxes(json.loads(encoded.members[BOXES].data), size_px, new_px)
        encoded = encoded.with_member(BOXES, Member(json.dumps(content).encode(), "json"))
    return encoded


def _shrunk_mask(data: bytes, size_px: Size, new_px: Size) -> bytes:
    """Scale a mask, .npy or PNG, to a file that is read in the same way."""
    content = io.BytesIO()
    if data.startswith(b"\x93NUMPY"):
        values = np.load(io.BytesIO(data), allow_pickle=False)
        np.save(content, _nearest(values, size_px, new_px))
        return content.getvalue()
    image: Image.Image = Image.open(io.BytesIO(data))
    if image.mode == "L" and data[24] < 8:  # whose values PIL has widened: as a palette of grays
        levels = 2 ** data[24]
        step = 255 // (levels - 1)
        palette = Image.fromarray(np.asarray(image) // np.uint8(step))
        palette.putpalette([step * level for level in range(levels) for _ in range(3)])
        image = palette
    small = Image.fromarray(_nearest(np.asarray(image), size_px, new_px))
    if image.mode == "P":
        small.putpalette(image.getpalette() or [])
    small.save(content, "PNG")
    return content.getvalue()


def _shrunk_boxes(content: dict[str, Any], size_px: Size, new_px: Size) -> dict[str, Any]:
    """Scale the lists of boxes; those that have no unit stay as they are."""
    y_scale, x_scale = (new / old for new, old in zip(new_px, size_px, strict=True))
    factors = (x_scale, y_scale, x_scale, y_scale)
    scaled = dict(content)
    scaled["boxes"] = [
        [value * factor for value, factor in zip(box, factors, strict=True)]
        for box in content["boxes"]
    ]
    if "areas" in content:
        scaled["areas"] = [area * x_scale * y_scale for area in content["areas"]]
    if "masks" in content:
        masks = (decode_rle(mask, size_px) for mask in content["masks"])
        scaled["masks"] = [encode_rle(_nearest(mask, size_px, new_px)) for mask in masks]
    return scaled


def _nearest(values: NDArray[Any], size_px: Size, new_px: Size) -> NDArray[Any]:
    """Return of values (H, W) or (H, W, C) those at the centres of new pixels."""
    rows, columns = (nearest_pixels(*pair).numpy() for pair in zip(size_px, new_px, strict=True))
    chosen: NDArray[Any] = values[rows][:, columns]
    return chosen

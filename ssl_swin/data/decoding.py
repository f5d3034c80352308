"""From the encoded files of a sample to pixels, masks, boxes and other values."""

import io
import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_swin.data.box_lists import BOXES, decode_boxes
from ssl_swin.data.encoded import IMAGE, MASK, EncodedSample, Member
from ssl_swin.data.images.decode import decode_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sample import Sample
from ssl_swin.errors import UserError

_PNG = b"\x89PNG\r\n\x1a\n"
_NPY = b"\x93NUMPY"
_GRAY = 0  # colour type of a PNG
_LARGEST_OF_BITS = {2: 85, 4: 17}  # PIL widens 2 and 4 bits of gray to 8 by these factors


def decode_sample(
    encoded: EncodedSample,
    pixels: PixelFormat,
    *,
    members: Collection[str] = (IMAGE,),
    box_masks: bool = True,
) -> Sample:
    """Decode the image of a sample, and the members that are asked for.

    - `mask`: a PNG of one channel (gray or palette, 1 to 16 bits) or an `.npy` of integers (H, W).
      The stored values are the classes; nothing is converted.
    - `boxes`: JSON of boxes, their labels, and masks, see `data/box_lists.py`.
    - other members by their extension: `.json` is parsed, `.npy` loaded as an array, `.txt` decoded
      as UTF-8; what has another extension stays bytes.

    Args:
        encoded: The sample.
        pixels: What the decoded image is. A mask and boxes are taken as they are stored: where
            `exif_rotation` turns the image, as drawn on the turned one.
        members: Names of the members to decode; the image is always decoded.
        box_masks: Whether to decode the masks of objects with their boxes.

    Raises:
        UserError: If an asked-for member is missing or cannot be decoded, or a mask has another
            size than the image.
    """
    values = decode_image(encoded.data, pixels, name=encoded.name)
    size_px = values.shape[-2], values.shape[-1]
    others = {
        name: _decode_other(encoded, name) for name in members if name not in (IMAGE, MASK, BOXES)
    }
    sample = Sample(values, label=encoded.label, name=encoded.name, members=others)
    if MASK in members:
        sample = replace(sample, mask=_decode_mask(encoded, size_px))
    if BOXES in members:
        found = decode_boxes(encoded, size_px, with_masks=box_masks)
        sample = replace(
            sample,
            boxes=found.boxes,
            box_labels=found.labels,
            box_masks=found.masks,
            box_crowd=found.crowd,
            box_areas=found.areas,
        )
    return sample


def decode_mask(encoded: EncodedSample) -> Tensor:
    """Decode the mask of a sample: the values as they are stored, uint8 or int64 (H, W).

    Args:
        encoded: The sample.

    Raises:
        UserError: If it is missing or cannot be decoded.
    """
    member = encoded.member(MASK)
    try:
        classes = _read_classes(member.data)
    except Exception as error:  # decoders raise almost anything on a damaged file
        raise UserError(f"cannot decode the mask of {encoded.name}: {error}") from error
    return torch.from_numpy(classes)


def _decode_mask(encoded: EncodedSample, size_px: tuple[int, int]) -> Tensor:
    classes = decode_mask(encoded)
    if classes.shape != size_px:
        found, expected = (f"{height} x {width}" for height, width in (classes.shape, size_px))
        raise UserError(
            f"the mask of {encoded.name} is {found} px (height x width), its image {expected}"
        )
    return classes


def _read_classes(data: bytes) -> NDArray[Any]:
    """Read a mask of one channel as uint8, or as int64 where values may be larger: (H, W)."""
    if data.startswith(_NPY):
        classes = np.load(io.BytesIO(data), allow_pickle=False)
    elif data.startswith(_PNG):
        classes = _read_png(data)
    else:
        raise ValueError("it is neither a PNG nor an .npy file; convert it without loss")
    if classes.ndim != 2 or classes.dtype.kind not in "bui":
        raise ValueError(
            f"it holds {classes.dtype} values of shape {classes.shape}; a mask is of integers "
            "(height, width)"
        )
    narrow = classes.dtype in (np.dtype(bool), np.dtype(np.uint8))
    return np.array(classes, dtype=np.uint8 if narrow else np.int64, order="C")


def _read_png(data: bytes) -> NDArray[Any]:
    bits, colour_type = data[24], data[25]
    classes = np.asarray(Image.open(io.BytesIO(data)))
    if colour_type == _GRAY and bits in _LARGEST_OF_BITS:
        return classes // np.uint8(_LARGEST_OF_BITS[bits])
    return classes


def _decode_other(encoded: EncodedSample, name: str) -> Any:
    member = encoded.member(name)
    if member.extension == "json":
        return _parse_json(encoded, name)
    try:
        return _decode_by_extension(member)
    except ValueError as error:  # that of UnicodeDecodeError, too
        raise UserError(f"cannot decode the member {name!r} of {encoded.name}: {error}") from error


def _decode_by_extension(member: Member) -> Any:
    if member.extension == "npy":
        return np.load(io.BytesIO(member.data), allow_pickle=False)
    return member.data.decode() if member.extension == "txt" else member.data


def _parse_json(encoded: EncodedSample, name: str) -> Any:
    try:
        return json.loads(encoded.member(name).data)
    except ValueError as error:
        raise UserError(f"the member {name!r} of {encoded.name} is no JSON: {error}") from error

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
from ssl_swin.data.mask_colours import coded_colours
from ssl_swin.data.sample import Sample
from ssl_swin.errors import UserError

_PNG = b"\x89PNG\r\n\x1a\n"
_NPY = b"\x93NUMPY"
_GRAY, _RGB, _RGBA = 0, 2, 6  # colour types of a PNG
_LARGEST_OF_BITS = {2: 85, 4: 17}  # PIL widens 2 and 4 bits of gray to 8 by these factors


def decode_sample(
    encoded: EncodedSample,
    pixels: PixelFormat,
    *,
    members: Collection[str] = (IMAGE,),
    box_masks: bool = True,
    as_colours: bool = False,
) -> Sample:
    """Decode the image of a sample, and the members that are asked for.

    - `mask`: a PNG of one channel (gray or palette, 1 to 16 bits) or an `.npy` of integers (H, W).
      The stored values are the classes; nothing is converted. Also RGB of 8 bits, as numbers of
      colours (`data/mask_colours.py`).
    - `boxes`: JSON of boxes, their labels, and masks, see `data/box_lists.py`.
    - other members by their extension: `.json` is parsed, `.npy` loaded as an array, `.txt` decoded
      as UTF-8; what has another extension stays bytes.

    Args:
        encoded: The sample.
        pixels: What the decoded image is. A mask and boxes are taken as they are stored: where
            `exif_rotation` turns the image, as drawn on the turned one.
        members: Names of the members to decode; the image is always decoded.
        box_masks: Whether to decode the masks of objects with their boxes.
        as_colours: As in `decode_mask`.

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
        mask = decode_mask(encoded, as_colours=as_colours)
        check_mask_size(mask, size_px, encoded.name)
        sample = replace(sample, mask=mask)
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


def decode_mask(encoded: EncodedSample, *, as_colours: bool = False) -> Tensor:
    """Decode the mask of a sample: the values as they are stored, uint8 or int64 (H, W).

    Args:
        encoded: The sample.
        as_colours: Whether gray levels and the colours of a palette are wanted as numbers of
            colours, too; else they are values, and only RGB gives such numbers.

    Raises:
        UserError: If it is missing or cannot be decoded.
    """
    member = encoded.member(MASK)
    try:
        classes = _read_classes(member.data, as_colours)
    except Exception as error:  # decoders raise almost anything on a damaged file
        raise UserError(f"cannot decode the mask of {encoded.name}: {error}") from error
    return torch.from_numpy(classes)


def check_mask_size(mask: Tensor, size_px: tuple[int, int], name: str) -> None:
    """Refuse a mask that is not as large as its image.

    Args:
        mask: The mask, (H, W).
        size_px: Height and width of the image.
        name: Name of the sample.

    Raises:
        UserError: Naming both sizes.
    """
    if mask.shape != size_px:
        found, expected = (f"{height} x {width}" for height, width in (mask.shape, size_px))
        raise UserError(f"the mask of {name} is {found} px (height x width), its image {expected}")


def _read_classes(data: bytes, as_colours: bool) -> NDArray[Any]:
    """Read a mask as uint8, or as int64 where values may be larger: (H, W)."""
    if data.startswith(_NPY):
        classes = np.load(io.BytesIO(data), allow_pickle=False)
        if classes.ndim == 3 and classes.shape[-1] == 3 and classes.dtype == np.uint8:
            classes = coded_colours(classes)
    elif data.startswith(_PNG):
        classes = _read_png(data, as_colours)
    else:
        raise ValueError("it is neither a PNG nor an .npy file; convert it without loss")
    if classes.ndim != 2 or classes.dtype.kind not in "bui":
        raise ValueError(
            f"it holds {classes.dtype} values of shape {classes.shape}; a mask is of integers "
            "(height, width), or of colours of 8 bits (height, width, 3)"
        )
    narrow = classes.dtype in (np.dtype(bool), np.dtype(np.uint8))
    return np.array(classes, dtype=np.uint8 if narrow else np.int64, order="C")


def _read_png(data: bytes, as_colours: bool) -> NDArray[Any]:
    bits, colour_type = data[24], data[25]
    image = Image.open(io.BytesIO(data))
    if as_colours or colour_type in (_RGB, _RGBA):
        return coded_colours(_colours(image, bits))
    classes = np.asarray(image)
    if colour_type == _GRAY and bits in _LARGEST_OF_BITS:
        return classes // np.uint8(_LARGEST_OF_BITS[bits])
    return classes


def _colours(image: Image.Image, bits: int) -> NDArray[np.uint8]:
    """Return the colours of a picture, (H, W, 3)."""
    if bits > 8:
        raise ValueError(f"it has {bits} bits a channel; colours that are classes have 8")
    rgba = np.asarray(image.convert("RGBA"))
    if (rgba[..., 3] < 255).any():
        raise ValueError("some of its pixels are transparent: save it without transparency")
    return rgba[..., :3]


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

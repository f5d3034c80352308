"""Crop, resize and flip of a sample: pixels, mask and boxes together."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from ssl_swin.data.sample import Sample

Size = tuple[int, int]


def crop(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """Return a rectangle of a sample; boxes are clipped to it, and those outside are dropped.

    Args:
        sample: The sample.
        top: First row of the rectangle.
        left: First column of the rectangle.
        height: Number of rows.
        width: Number of columns.
    """
    changes: dict[str, Any] = {"pixels": TF.crop(sample.pixels, top, left, height, width)}
    if sample.mask is not None:
        changes["mask"] = sample.mask[top : top + height, left : left + width]
    if sample.boxes is not None:
        changes |= _clip(sample, sample.boxes - _xyxy(left, top), (height, width))
    return replace(sample, **changes)


def resize(sample: Sample, size_px: Size, interpolation: InterpolationMode) -> Sample:
    """Return a sample of another size.

    Pixels are interpolated with antialiasing; of a mask, each new pixel takes the class at its
    centre.

    Args:
        sample: The sample.
        size_px: New height and width.
        interpolation: Interpolation of the pixels.
    """
    changes: dict[str, Any] = {"pixels": _resize_pixels(sample.pixels, size_px, interpolation)}
    if sample.mask is not None:
        rows, columns = map(_nearest, sample.mask.shape, size_px)
        changes["mask"] = sample.mask[rows][:, columns]
    if sample.boxes is not None:
        (height_px, width_px), (new_height_px, new_width_px) = sample.size_px, size_px
        scale = _xyxy(new_width_px / width_px, new_height_px / height_px)
        changes["boxes"] = sample.boxes * scale
    return replace(sample, **changes)


def flip(sample: Sample) -> Sample:
    """Return a sample mirrored from left to right."""
    changes: dict[str, Any] = {"pixels": _mirrored(sample.pixels)}
    if sample.mask is not None:
        changes["mask"] = sample.mask.flip(-1)
    if sample.boxes is not None:
        x_min, y_min, x_max, y_max = sample.boxes.unbind(-1)
        width_px = sample.size_px[1]
        changes["boxes"] = torch.stack([width_px - x_max, y_min, width_px - x_min, y_max], dim=-1)
    return replace(sample, **changes)


def _mirrored(pixels: Tensor) -> Tensor:
    """Return pixels from right to left; torch 2.9 cannot flip unsigned numbers of 16 bits."""
    if pixels.dtype == torch.uint16:
        return pixels.view(torch.int16).flip(-1).view(torch.uint16)
    return pixels.flip(-1)


def contiguous(sample: Sample) -> Sample:
    """Return a sample whose pixels and mask are contiguous in memory."""
    mask = None if sample.mask is None else sample.mask.contiguous()
    return replace(sample, pixels=sample.pixels.contiguous(), mask=mask)


def _resize_pixels(pixels: Tensor, size_px: Size, interpolation: InterpolationMode) -> Tensor:
    """Resize with antialiasing; 16 bits by way of float, since torch resizes 8 bits or floats."""
    if pixels.dtype != torch.uint16:
        resized: Tensor = TF.resize(pixels, list(size_px), interpolation, antialias=True)
        return resized
    values = TF.resize(pixels.float(), list(size_px), interpolation, antialias=True)
    return values.round_().clamp_(0, 65535).to(torch.uint16)  # type: ignore[no-any-return]


def _nearest(old: int, new: int) -> Tensor:
    """Return which of `old` pixels lies at the centre of each of `new` ones, without rounding."""
    return (2 * torch.arange(new) + 1) * old // (2 * new)


def _clip(sample: Sample, boxes: Tensor, size_px: Size) -> dict[str, Tensor]:
    """Clip boxes to an image, and drop those that vanish together with their labels."""
    height_px, width_px = size_px
    clipped = torch.minimum(boxes.clamp(min=0), _xyxy(width_px, height_px))
    remains = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    changes = {"boxes": clipped[remains]}
    if sample.box_labels is not None:
        changes["box_labels"] = sample.box_labels[remains]
    return changes


def _xyxy(x: float, y: float) -> Tensor:
    return torch.tensor([x, y, x, y], dtype=torch.float32)

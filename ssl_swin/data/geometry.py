"""Crop, resize and flip of a sample: pixels, mask, boxes and masks of objects together."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from ssl_swin.data.sample import Sample

Size = tuple[int, int]
_OF_BOXES = ("boxes", "box_labels", "box_masks", "box_crowd", "box_areas")


def crop(sample: Sample, top: int, left: int, height: int, width: int) -> Sample:
    """Return a rectangle of a sample; boxes are clipped to it, and those outside are dropped.

    With a box go its label, its mask and whatever else is known of it. Areas shrink with the mask,
    or with the box where there is none.

    Args:
        sample: The sample.
        top: First row of the rectangle.
        left: First column of the rectangle.
        height: Number of rows.
        width: Number of columns.
    """
    pixels = sample.pixels[:, top : top + height, left : left + width]
    changes: dict[str, Any] = {"pixels": pixels}
    if sample.mask is not None:
        changes["mask"] = sample.mask[top : top + height, left : left + width]
    if sample.boxes is not None:
        changes |= _cropped_objects(sample, sample.boxes, top, left, height, width)
    return replace(sample, **changes)


def resize(sample: Sample, size_px: Size, interpolation: InterpolationMode) -> Sample:
    """Return a sample of another size.

    Pixels are interpolated with antialiasing; of a mask, each new pixel takes what lies at its
    centre.

    Args:
        sample: The sample.
        size_px: New height and width.
        interpolation: Interpolation of the pixels.
    """
    changes: dict[str, Any] = {"pixels": _resize_pixels(sample.pixels, size_px, interpolation)}
    if sample.mask is not None:
        rows, columns = map(nearest_pixels, sample.mask.shape, size_px)
        changes["mask"] = sample.mask[rows][:, columns]
    if sample.boxes is not None:
        (height_px, width_px), (new_height_px, new_width_px) = sample.size_px, size_px
        x_scale, y_scale = new_width_px / width_px, new_height_px / height_px
        changes["boxes"] = sample.boxes * _xyxy(x_scale, y_scale)
        if sample.box_areas is not None:
            changes["box_areas"] = sample.box_areas * (x_scale * y_scale)
    if sample.box_masks is not None:
        rows, columns = map(nearest_pixels, sample.box_masks.shape[1:], size_px)
        changes["box_masks"] = sample.box_masks[:, rows][:, :, columns]
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
    if sample.box_masks is not None:
        changes["box_masks"] = sample.box_masks.flip(-1)
    return replace(sample, **changes)


def _mirrored(pixels: Tensor) -> Tensor:
    """Return pixels from right to left; torch 2.9 cannot flip unsigned numbers of 16 bits."""
    if pixels.dtype == torch.uint16:
        return pixels.view(torch.int16).flip(-1).view(torch.uint16)
    return pixels.flip(-1)


def contiguous(sample: Sample) -> Sample:
    """Return a sample whose pixels and masks are contiguous in memory."""
    mask = None if sample.mask is None else sample.mask.contiguous()
    box_masks = None if sample.box_masks is None else sample.box_masks.contiguous()
    return replace(sample, pixels=sample.pixels.contiguous(), mask=mask, box_masks=box_masks)


def keep_boxes(sample: Sample, kept: Tensor) -> Sample:
    """Return a sample with some of its boxes, and what belongs to them.

    Args:
        sample: The sample, with boxes.
        kept: Which boxes stay, bool (N,).
    """
    if kept.all():
        return sample
    lists = {name: getattr(sample, name) for name in _OF_BOXES}
    return replace(sample, **{name: v[kept] for name, v in lists.items() if v is not None})


def _resize_pixels(pixels: Tensor, size_px: Size, interpolation: InterpolationMode) -> Tensor:
    """Resize with antialiasing; 16 bits by way of float, since torch resizes 8 bits or floats.

    8 bits go to torch's kernel by the shortest way: at 32 px, torchvision's way there takes as long
    as the kernel.
    """
    if pixels.dtype == torch.uint8:
        mode = interpolation.value
        return F.interpolate(pixels[None], size_px, mode=mode, antialias=True)[0]
    if pixels.dtype != torch.uint16:
        resized: Tensor = TF.resize(pixels, list(size_px), interpolation, antialias=True)
        return resized
    values = TF.resize(pixels.float(), list(size_px), interpolation, antialias=True)
    return values.round_().clamp_(0, 65535).to(torch.uint16)  # type: ignore[no-any-return]


def nearest_pixels(old: int, new: int) -> Tensor:
    """Return which of `old` pixels lies at the centre of each of `new` ones, without rounding."""
    return (2 * torch.arange(new) + 1) * old // (2 * new)


def _cropped_objects(
    sample: Sample, boxes: Tensor, top: int, left: int, height: int, width: int
) -> dict[str, Any]:
    """Clip boxes and masks to a rectangle, and drop those that vanish with all that they have."""
    moved = boxes - _xyxy(left, top)
    clipped = torch.minimum(moved.clamp(min=0), _xyxy(width, height))
    remains = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    kept = keep_boxes(sample, remains)
    changes: dict[str, Any] = {name: getattr(kept, name) for name in _OF_BOXES}
    changes["boxes"] = clipped[remains]
    if kept.box_masks is not None:
        changes["box_masks"] = kept.box_masks[:, top : top + height, left : left + width]
    if kept.box_areas is not None:
        is_cut = (clipped != moved).any(dim=1)[remains]
        before, after = box_areas(boxes[remains][is_cut]), box_areas(clipped[remains][is_cut])
        if kept.box_masks is not None:
            before = kept.box_masks[is_cut].count_nonzero(dim=(1, 2))
            after = changes["box_masks"][is_cut].count_nonzero(dim=(1, 2))
        changes["box_areas"] = kept.box_areas.clone()
        changes["box_areas"][is_cut] *= after / before.clamp(min=1e-6)
    return changes


def box_areas(boxes: Tensor) -> Tensor:
    """Return the areas in px^2 of boxes (N, 4), as x_min, y_min, x_max, y_max."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _xyxy(x: float, y: float) -> Tensor:
    return torch.tensor([x, y, x, y], dtype=torch.float32)

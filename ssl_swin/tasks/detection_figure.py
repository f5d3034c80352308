"""The figure of detection: the same images with the objects that they hold, and those told."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ssl_swin.data.detect_samples import DetectBatch
from ssl_swin.data.segment_views import size_within
from ssl_swin.figure import Figure, ImageColumn, ObjectColumn, Objects
from ssl_swin.tasks.detections import Detections

SHORT_PX, LONG_PX = 320, 512  # of a tile: images are scaled down to it, or up by a whole factor
LEAST_SCORE = 0.3  # of a detection that is drawn
MOST_DRAWN = 100  # of an image, the surest


def detection_figure(
    images: Tensor,
    batch: DetectBatch,
    found: Sequence[Detections],
    classes: Sequence[str],
) -> Figure:
    """Return truth and prediction of images beside each other.

    Args:
        images: Those of the batch, normalised (B, C, H, W).
        batch: Says how large each is, and what is in it.
        found: What is detected in each; nothing leaves the prediction out.
        classes: Names by label.
    """
    parts = _parts(images, batch.sizes_px)
    shown = [_scaled(part) for part in parts]
    columns = [_column("truth", parts, shown, _truth(batch), classes)]
    if found:
        title = f"prediction, scores from {LEAST_SCORE:g}"
        columns.append(_column(title, parts, shown, map(surest, found), classes))
    return tuple(columns)


def views_figure(views: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Return views of the same images beside each other.

    Args:
        views: By title, images (B, C, H, W), normalised and filled up, and height and width of
            each, int64 (B, 2).
    """
    shown = [_scaled(part) for images, sizes in views.values() for part in _parts(images, sizes)]
    columns = _together(shown).chunk(len(views))
    return tuple(ImageColumn(*each) for each in zip(views, columns, strict=True))


def _parts(images: Tensor, sizes_px: Tensor) -> list[Tensor]:
    """Return the images of a batch (B, C, H, W) without what fills them up."""
    return [
        image[:, :height, :width]
        for image, (height, width) in zip(images, sizes_px.tolist(), strict=True)
    ]


def _truth(batch: DetectBatch) -> list[Objects]:
    masks: Sequence[Tensor | None] = batch.masks or [None] * len(batch.boxes)
    return [
        Objects(boxes, labels, masks=None if each is None else each > 0)
        for boxes, labels, each in zip(batch.boxes, batch.labels, masks, strict=True)
    ]


def surest(found: Detections) -> Objects:
    """Return the detections that are drawn, the surest first."""
    order = found.scores.argsort(descending=True)[:MOST_DRAWN]
    order = order[found.scores[order] >= LEAST_SCORE]
    masks = None if found.masks is None else found.masks[order]
    return Objects(found.boxes[order], found.labels[order], found.scores[order], masks)


def _column(
    title: str,
    parts: Sequence[Tensor],
    shown: Sequence[Tensor],
    objects: Iterable[Objects],
    classes: Sequence[str],
) -> ObjectColumn:
    moved = tuple(
        _moved(each, old, new) for each, old, new in zip(objects, parts, shown, strict=True)
    )
    return ObjectColumn(title, _together(shown), objects=moved, classes=tuple(classes))


def _scaled(image: Tensor) -> Tensor:
    """Scale an image (C, h, w) to the size of a figure's tile."""
    size = (image.shape[-2], image.shape[-1])
    target = size_within(size, SHORT_PX, LONG_PX)
    if target[0] > size[0]:
        factor = min(new // old for new, old in zip(target, size, strict=True))
        return image.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    return functional.interpolate(image[None], target, mode="bilinear", antialias=True)[0]


def _moved(objects: Objects, image: Tensor, shown: Tensor) -> Objects:
    """Return objects of an image in px of its tile."""
    (height, width), (new_height, new_width) = image.shape[-2:], shown.shape[-2:]
    across, down = new_width / width, new_height / height
    boxes = objects.boxes * objects.boxes.new_tensor([across, down, across, down])
    masks = objects.masks
    if masks is not None and len(masks):
        scaled = functional.interpolate(
            masks[None].float(), (new_height, new_width), mode="nearest-exact"
        )
        masks = scaled[0] > 0.5
    return Objects(boxes, objects.labels, objects.scores, masks if boxes.numel() else None)


def _together(images: Sequence[Tensor]) -> Tensor:
    """Stack images of unlike sizes, filled up with the mean on the right and at the bottom."""
    height, width = (max(image.shape[side] for image in images) for side in (-2, -1))
    filled = [
        functional.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))
        for image in images
    ]
    return torch.stack(filled)

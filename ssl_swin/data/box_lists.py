"""The member `boxes` of a sample: lists of boxes, their classes, and what else is known of them."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.rle import decode_rle
from ssl_swin.errors import UserError

BOXES = "boxes"


class BoxLists(NamedTuple):
    """What is known of the objects in an image; lists that are not stored are None."""

    boxes: Tensor  # float32 (N, 4): x_min, y_min, x_max, y_max in px
    labels: Tensor  # int64 (N,), from 0
    masks: Tensor | None  # uint8 (N, H, W) of 0 and 1
    crowd: Tensor | None  # bool (N,)
    areas: Tensor | None  # float32 (N,), px^2


def decode_boxes(
    encoded: EncodedSample, size_px: tuple[int, int], *, with_masks: bool = True
) -> BoxLists:
    """Decode the member `boxes` of a sample.

    It is JSON of the form {"boxes": [[x_min, y_min, x_max, y_max], ...], "labels": [...]}, with
    lists of the same length besides where there is more to say: `crowd` of true and false, `areas`
    in px^2, `masks` of run lengths (`data/rle.py`).

    Args:
        encoded: The sample.
        size_px: Height and width of its image.
        with_masks: Whether to decode the masks, if there are any.

    Raises:
        UserError: If there is no such member, or it is of another form.
    """
    content = _parsed(encoded)
    try:
        boxes = torch.tensor(content["boxes"], dtype=torch.float32).reshape(-1, 4)
        if len(boxes) != len(content["boxes"]):
            raise ValueError("a box has other than four numbers")
        if not all(isinstance(label, int) for label in content["labels"]):
            raise ValueError("a label is no whole number")
        labels = torch.tensor(content["labels"], dtype=torch.int64)
        found = {name: content[name] for name in ("crowd", "areas", "masks") if name in content}
        _check(boxes, labels, found)
        areas = torch.tensor(found["areas"], dtype=torch.float32) if "areas" in found else None
        crowd = torch.tensor(found["crowd"], dtype=torch.bool) if "crowd" in found else None
        masks = _masks(found["masks"], size_px) if with_masks and "masks" in found else None
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"the boxes of {encoded.name} are not of the form "
            f'{{"boxes": [[x_min, y_min, x_max, y_max], ...], "labels": [...]}}: {error}'
        ) from error
    return BoxLists(boxes, labels, masks, crowd, areas)


def has_masks(encoded: EncodedSample) -> bool | None:
    """Return whether the objects of a sample have masks; None where there is no object to tell.

    Args:
        encoded: The sample, with its member `boxes`.

    Raises:
        UserError: If there is no such member, or it is no JSON object.
    """
    content = _parsed(encoded)
    if not isinstance(content, dict):
        raise UserError(f"the boxes of {encoded.name} are no JSON object")
    return "masks" in content if content.get("boxes") else None


def _parsed(encoded: EncodedSample) -> Any:
    try:
        return json.loads(encoded.member(BOXES).data)
    except ValueError as error:
        raise UserError(f"the member {BOXES!r} of {encoded.name} is no JSON: {error}") from error


def _check(boxes: Tensor, labels: Tensor, others: Mapping[str, Any]) -> None:
    """Refuse lists that do not fit together, and boxes that cannot be ones.

    Raises:
        ValueError: Naming the list, or the box by its number from 0.
    """
    for name, values in (("labels", labels), *others.items()):
        if len(values) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes and {len(values)} {name} do not fit")
    if len(labels) and labels.min() < 0:
        raise ValueError(f"a label is {int(labels.min())}, and the first class is 0")
    if not torch.isfinite(boxes).all():
        raise ValueError("a coordinate is not finite")
    reversed_ = (boxes[:, 2:] < boxes[:, :2]).any(dim=1).nonzero().flatten().tolist()
    if reversed_:
        raise ValueError(
            f"box {reversed_[0]} ends before it begins, {boxes[reversed_[0]].tolist()}: is it x, "
            "y, width, height?"
        )


def _masks(stored: list[Any], size_px: tuple[int, int]) -> Tensor:
    masks = np.zeros((len(stored), *size_px), dtype=np.uint8)
    for mask, rle in zip(masks, stored, strict=True):
        mask[:] = decode_rle(rle, size_px)
    return torch.from_numpy(masks)

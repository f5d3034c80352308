"""Boxes, read before training: what would fail after an hour, and what nobody may have meant."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_swin.data.box_lists import BoxLists, decode_boxes, has_masks
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.detect_samples import LEAST_SIDE_PX
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.protocol import Split
from ssl_swin.errors import UserError
from ssl_swin.launch.printing import say
from ssl_swin.plurals import counted

MOST_LOOKED_AT = 256  # images of a split, before a run
MOST_NAMED = 5  # classes in a message


class Looked(NamedTuple):
    """A sample, and what it holds."""

    name: str  # for a message
    encoded: EncodedSample
    objects: BoxLists


@dataclass
class Seen:
    """What the boxes of some images of a split show."""

    num_boxes: Tensor  # int64 (classes,)
    num_images: int = 0
    num_empty: int = 0  # images without boxes
    num_crowds: int = 0  # boxes around crowds
    num_thin: int = 0  # boxes that are too thin to train on


def object_masks(reader: Split) -> bool:
    """Return whether the objects of a split have masks, by the first image that has any objects.

    Args:
        reader: The split; of one that is streamed it is not known.

    Raises:
        UserError: If it cannot be told.
    """
    for looked in _looked_at(reader):
        told = has_masks(looked.encoded)
        if told is not None:
            return told
    is_indexed = isinstance(reader, IndexedSplit)
    why = "no image with boxes was found" if is_indexed else "a stream is not looked at before"
    raise UserError(
        f"it cannot be told whether objects have masks, as {why}: give task.with_masks=true or "
        "task.with_masks=false"
    )


def look_at_boxes(split: str, reader: Split, classes: Sequence[str], *, with_masks: bool) -> None:
    """Read boxes before training: those of some images of a split, evenly spread, or all of few.

    Says which classes are in none of them, how many images have no box, and what is left out.

    Args:
        split: Name of the split.
        reader: The split; one that is streamed is passed over.
        classes: Names by label.
        with_masks: Whether masks are trained on.

    Raises:
        UserError: If a box is of no class, masks are missing, or there is no box at all.
    """
    seen = Seen(torch.zeros(len(classes), dtype=torch.int64))
    for looked in _looked_at(reader):
        boxes, labels, _, crowd, _ = looked.objects
        _check(looked, classes, with_masks=with_masks)
        seen.num_images += 1
        seen.num_empty += not len(boxes)
        seen.num_boxes += torch.bincount(labels, minlength=len(classes))
        is_crowd = torch.zeros(len(boxes), dtype=torch.bool) if crowd is None else crowd
        is_thin = ((boxes[:, 2:] - boxes[:, :2]) < LEAST_SIDE_PX).any(dim=1)
        seen.num_crowds += int(is_crowd.sum())
        seen.num_thin += int((is_thin & ~is_crowd).sum())
    if seen.num_images:
        _tell(split, seen, classes)


def _looked_at(reader: Split) -> Iterator[Looked]:
    """Yield samples whose boxes can be read."""
    if not isinstance(reader, IndexedSplit) or not reader.num_samples:
        return
    dataset: ImageDataset = reader.dataset
    number = min(MOST_LOOKED_AT, len(dataset))
    for index in np.linspace(0, len(dataset) - 1, number).astype(np.int64).tolist():
        try:
            encoded = dataset[index]
            objects = decode_boxes(encoded, (0, 0), with_masks=False)
        except (UserError, OSError):  # damaged, which the loader passes over and counts
            continue
        file = dataset.file_name(index)
        name = f"{encoded.name} ({file})" if file and file != encoded.name else encoded.name
        yield Looked(name, encoded, objects)


def _check(looked: Looked, classes: Sequence[str], *, with_masks: bool) -> None:
    name, encoded, (_, labels, *_) = looked
    if len(labels) and (largest := int(labels.max())) >= len(classes):
        raise UserError(
            f"the boxes of {name} have the label {largest}, and there are "
            f"{counted(len(classes), 'class')}, from 0: give them all, as classes=[car,dog]"
        )
    if with_masks and has_masks(encoded) is False:
        raise UserError(
            f"the objects of {name} have no masks, and task.with_masks=true trains on them: set "
            "task.with_masks=false to train on boxes alone"
        )


def _tell(split: str, seen: Seen, classes: Sequence[str]) -> None:
    looked_at = f"{counted(seen.num_images, 'image')} of {split} that were looked at"
    if not seen.num_boxes.any():
        raise UserError(f"{looked_at} have no box: there is nothing to learn from, or to measure")
    if seen.num_empty:
        say(f"note: {seen.num_empty} of {looked_at} have no box, and count as background")
    missing = [classes[label] for label in (seen.num_boxes == 0).nonzero().flatten().tolist()]
    if missing:
        more = f" and {len(missing) - MOST_NAMED} others" if len(missing) > MOST_NAMED else ""
        say(f"note: {looked_at} have no box of class {', '.join(missing[:MOST_NAMED])}{more}")
    if split == "train" and seen.num_crowds + seen.num_thin:
        say(
            f"note: {looked_at} have {counted(seen.num_crowds, 'box')} around crowds and "
            f"{seen.num_thin} below {LEAST_SIDE_PX:g} px, which are not trained on"
        )

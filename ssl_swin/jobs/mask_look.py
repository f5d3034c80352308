"""Masks, read before training: what would fail after an hour, and what nobody may have meant."""

import numpy as np
import torch
from torch import Tensor

from ssl_swin.data.decoding import check_mask_size, decode_mask
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.protocol import Split
from ssl_swin.data.mask_classes import IGNORED
from ssl_swin.data.member_check import size_in_px
from ssl_swin.errors import UserError
from ssl_swin.launch.printing import say
from ssl_swin.plurals import counted
from ssl_swin.tasks.segmentation import Segmentation

MOST_LOOKED_AT = 256  # masks of a split, before a run
MOST_NAMED = 5  # classes in a message


def look_at_masks(split: str, reader: Split, task: Segmentation, pixels: PixelFormat) -> None:
    """Read masks before training: some of each split, evenly spread, or all of few.

    Says which classes are in none of them.

    Args:
        split: Name of the split.
        reader: The split; one that is streamed is passed over.
        task: Says what values stand for.
        pixels: How images are read.

    Raises:
        UserError: If a mask holds a value or colour of no class, or is of another size than its
            image, naming its file.
    """
    if not isinstance(reader, IndexedSplit) or not reader.num_samples:
        return
    num_classes, dataset = len(task.classes), reader.dataset
    number = min(MOST_LOOKED_AT, len(dataset))
    seen = torch.zeros(num_classes, dtype=torch.bool)
    for index in np.linspace(0, len(dataset) - 1, number).astype(np.int64).tolist():
        try:
            encoded = dataset[index]
            mask = decode_mask(encoded, as_colours=task.masks.are_colours)
        except (UserError, OSError):  # damaged, which the loader passes over and counts
            continue
        file = dataset.file_name(index)
        name = f"{encoded.name} ({file})" if file and file != encoded.name else encoded.name
        _check_size(encoded, mask, pixels, name)
        found = task.masks.read(mask, num_classes, name)
        seen[found[found != IGNORED].long()] = True
    if not seen.all():
        missing = [task.classes[label] for label in (~seen).nonzero().flatten().tolist()]
        more = f" and {len(missing) - MOST_NAMED} others" if len(missing) > MOST_NAMED else ""
        say(
            f"note: {counted(number, 'mask')} of {split} that were looked at hold no pixel of "
            f"class {', '.join(missing[:MOST_NAMED])}{more}"
        )


def _check_size(encoded: EncodedSample, mask: Tensor, pixels: PixelFormat, name: str) -> None:
    try:
        size_px = size_in_px(encoded.data, pixels)
    except ValueError:  # damaged, likewise
        return
    if size_px is not None:
        check_mask_size(mask, size_px, name)

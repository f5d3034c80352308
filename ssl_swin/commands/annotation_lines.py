"""What `ssl-swin stats` says of masks and boxes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ssl_swin.plurals import counted

if TYPE_CHECKING:
    from ssl_swin.data.inspection.annotation_counts import AnnotationCounts, BoxCounts, MaskCounts
    from ssl_swin.data.mask_classes import MaskClasses

MOST_CLASSES = 40  # lines; of more, the most and the least frequent are shown
NUM_FIRST, NUM_LAST = 20, 10


def annotation_lines(
    counts: "AnnotationCounts", masks: "MaskClasses", classes: Sequence[str]
) -> list[str]:
    """Return lines on pixels, boxes and images of each class; none without masks and boxes.

    Args:
        counts: What was counted.
        masks: What the values of masks stand for.
        classes: Names of the classes; none where they are not known.
    """
    lines = []
    if counts.masks.num_images:
        lines += _of_masks(counts.masks, masks, classes)
    if counts.boxes.per_image:
        lines += _of_boxes(counts.boxes, classes)
    if counts.unreadable:
        number = len(counts.unreadable)
        title = "1 mask or list of boxes" if number == 1 else f"{number} masks or lists of boxes"
        lines.append(f"{title} cannot be read: {counts.unreadable[0]}")
    return lines


def _of_masks(counts: "MaskCounts", masks: "MaskClasses", classes: Sequence[str]) -> list[str]:
    total = counts.pixels.total()
    rows = []
    for value, number in counts.pixels.most_common():
        share = f"{100 * number / total:.3g} % of the pixels"
        title = _title(value, masks, classes)
        rows.append(f"  {title}: {share}, in {counted(counts.images[value], 'image')}")
    absent = _absent(masks, classes, set(counts.pixels))
    return [f"values of {counted(counts.num_images, 'mask')}:", *_cut(rows), *absent]


def _title(value: int, masks: "MaskClasses", classes: Sequence[str]) -> str:
    """Return a value or colour, and what it stands for."""
    from ssl_swin.data.mask_classes import IGNORED
    from ssl_swin.data.mask_colours import FIRST_COLOUR, colour_name

    shown = f"colour {colour_name(value)}" if value >= FIRST_COLOUR else str(value)
    if masks.class_of_colour is None and value >= FIRST_COLOUR:
        return shown
    label = masks.class_of_value(value, len(classes) or None)
    if label is None:
        return f"{shown} (no class)"
    if label == IGNORED:
        return f"{shown} (left out)"
    if label < len(classes):
        return f"{shown} {classes[label]}"
    return shown if label == value else f"{shown}, class {label}"


def _absent(masks: "MaskClasses", classes: Sequence[str], values: set[int]) -> list[str]:
    found = {masks.class_of_value(value, len(classes) or None) for value in values}
    names = [name for label, name in enumerate(classes) if label not in found]
    return [f"  no pixel of: {_listed(names)}"] if names else []


def _of_boxes(counts: "BoxCounts", classes: Sequence[str]) -> list[str]:
    import numpy as np

    numbers = np.array(counts.per_image)
    total = counts.boxes.total()
    lines = [
        f"boxes: {total} in {int((numbers > 0).sum())} of {counted(len(numbers), 'image')}, "
        f"{numbers.min()} to {numbers.max()} an image, median {np.median(numbers):g}"
    ]
    if counts.num_with_masks:
        lines.append(f"with a mask: {counts.num_with_masks}")
    if counts.num_crowds:
        lines.append(f"around crowds: {counts.num_crowds} more, which training leaves out")
    sizes = ", ".join(f"{counts.sizes[name]} {name}" for name in ("small", "medium", "large"))
    lines.append(f"sizes: {sizes} (below 32 x 32 px, below 96 x 96 px, above)")
    rows = []
    for label, number in counts.boxes.most_common():
        name = classes[label] if label < len(classes) else "(no class)" if classes else ""
        title = f"{label} {name}".strip()
        images = counted(counts.images[label], "image")
        rows.append(f"  {title}: {counted(number, 'box')}, in {images}")
    names = [name for label, name in enumerate(classes) if not counts.boxes[label]]
    return [*lines, *_cut(rows), *([f"  no box of: {_listed(names)}"] if names else [])]


def _cut(rows: list[str]) -> list[str]:
    if len(rows) <= MOST_CLASSES:
        return rows
    left = len(rows) - NUM_FIRST - NUM_LAST
    return [*rows[:NUM_FIRST], f"  ... and {left} between", *rows[-NUM_LAST:]]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_FIRST} others" if len(names) > NUM_FIRST else ""
    return f"{', '.join(names[:NUM_FIRST])}{more}"

"""What masks and boxes of a set hold: pixels, boxes and images of each class."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ssl_swin.data.box_lists import BOXES, decode_boxes
from ssl_swin.data.decoding import decode_mask
from ssl_swin.data.encoded import MASK, EncodedSample
from ssl_swin.errors import UserError

SMALL_PX2, LARGE_PX2 = 32**2, 96**2  # limits of COCO's small, medium and large objects


@dataclass
class MaskCounts:
    """What masks hold, by the values that are stored, or by colours as numbers.

    Attributes:
        pixels: How many have a value.
        images: How many have a pixel of it.
        num_images: How many have a mask.
    """

    pixels: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    num_images: int = 0

    def add(self, other: Self) -> None:
        """Count what another has counted, too."""
        self.pixels += other.pixels
        self.images += other.images
        self.num_images += other.num_images


@dataclass
class BoxCounts:
    """What boxes there are; those around crowds of objects are counted apart.

    Attributes:
        boxes: How many are of a class.
        images: How many have a box of it.
        sizes: How many are "small", "medium" and "large": by the area of the object where it is
            stored, else of the box, below 32^2, below 96^2 px^2, and above.
        per_image: How many each image has.
        num_crowds: How many are around crowds.
        num_with_masks: How many have a mask.
    """

    boxes: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    per_image: list[int] = field(default_factory=list)
    num_crowds: int = 0
    num_with_masks: int = 0

    def add(self, other: Self) -> None:
        """Count what another has counted, too."""
        self.boxes += other.boxes
        self.images += other.images
        self.sizes += other.sizes
        self.per_image += other.per_image
        self.num_crowds += other.num_crowds
        self.num_with_masks += other.num_with_masks


@dataclass
class AnnotationCounts:
    """What masks and boxes hold.

    Attributes:
        masks: Of masks.
        boxes: Of boxes.
        unreadable: Why masks and boxes cannot be read, a sentence each.
    """

    masks: MaskCounts = field(default_factory=MaskCounts)
    boxes: BoxCounts = field(default_factory=BoxCounts)
    unreadable: list[str] = field(default_factory=list)

    def add(self, other: Self) -> None:
        """Count what another has counted, too."""
        self.masks.add(other.masks)
        self.boxes.add(other.boxes)
        self.unreadable += other.unreadable

    def count(
        self, encoded: EncodedSample, size_px: tuple[int, int], *, as_colours: bool = False
    ) -> None:
        """Count the mask and the boxes of a sample.

        Args:
            encoded: The sample.
            size_px: Height and width of its image.
            as_colours: As in `decode_mask`.
        """
        try:
            if MASK in encoded.members:
                self.masks.add(count_mask(encoded, as_colours=as_colours))
            if BOXES in encoded.members:
                self.boxes.add(count_boxes(encoded, size_px))
        except UserError as error:
            self.unreadable.append(str(error))


def count_mask(encoded: EncodedSample, *, as_colours: bool = False) -> MaskCounts:
    """Count the pixels of a mask by their values.

    Args:
        encoded: The sample, with its mask.
        as_colours: As in `decode_mask`.

    Raises:
        UserError: If it cannot be decoded.
    """
    values, numbers = np.unique(
        decode_mask(encoded, as_colours=as_colours).numpy(), return_counts=True
    )
    pixels = Counter(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    return MaskCounts(pixels, Counter(pixels.keys()), 1)


def count_boxes(encoded: EncodedSample, size_px: tuple[int, int]) -> BoxCounts:
    """Count the boxes of a sample by their classes and sizes.

    Args:
        encoded: The sample, with its boxes.
        size_px: Height and width of its image.

    Raises:
        UserError: If they are of another form.
    """
    found = decode_boxes(encoded, size_px)
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    areas = sides.prod(dim=1) if found.areas is None else found.areas
    is_crowd = [False] * len(sides) if found.crowd is None else found.crowd.tolist()
    labels = [n for n, crowd in zip(found.labels.tolist(), is_crowd, strict=True) if not crowd]
    sizes = [size_name(a) for a, crowd in zip(areas.tolist(), is_crowd, strict=True) if not crowd]
    return BoxCounts(
        Counter(labels),
        Counter(set(labels)),
        Counter(sizes),
        [len(labels)],
        sum(is_crowd),
        0 if found.masks is None else len(labels),
    )


def size_name(area_px2: float) -> str:
    """Return whether COCO counts an object as small, medium or large."""
    if area_px2 < SMALL_PX2:
        return "small"
    return "medium" if area_px2 < LARGE_PX2 else "large"

"""The objects of images as annotations have them, and what of them is left out."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssl_swin.data.sources.left_out import LeftOut, shown, some
from ssl_swin.plurals import counted

MOST_NAMED = 5  # classes or files in a note


@dataclass
class Objects:
    """The objects of one image.

    Attributes:
        image: The image file.
        name: Name of the sample.
        size_px: Height and width, as the annotations say. None where they say none: coordinates are
            then shares of the width and the height.
        boxes: x_min, y_min, x_max, y_max of each object.
        labels: Class of each object.
        crowd: Whether each box is around a crowd.
        areas: Area of each object in px^2; None for one that is not known.
        shapes: Mask of each object as run lengths or as a list of polygons x, y, x, y, ...; None
            for one that has no mask.
    """

    image: Path
    name: str
    size_px: tuple[int, int] | None
    boxes: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    areas: list[float | None] = field(default_factory=list)
    shapes: list[Any] = field(default_factory=list)

    def add(
        self,
        box: list[float],
        label: int,
        *,
        crowd: bool = False,
        area: float | None = None,
        shape: Any = None,
    ) -> None:
        """Add an object."""
        self.boxes.append(box)
        self.labels.append(label)
        self.crowd.append(crowd)
        self.areas.append(area)
        self.shapes.append(shape)

    def keep(self, kept: Sequence[bool]) -> None:
        """Take out the objects that are not to be kept."""
        for values in (self.boxes, self.labels, self.crowd, self.areas, self.shapes):
            values[:] = [value for value, stays in zip(values, kept, strict=True) if stays]


@dataclass
class Tally:
    """What was found in the annotations of a split and is told in a line each.

    Attributes:
        file: Where the annotations are, for messages.
        empty: Boxes that are empty or outside their image.
        without_mask: Objects without a mask among those with one.
        without_image: Images that are not on disk.
        unlisted: Boxes of images that the annotations do not list.
        unannotated: Images that nothing is known of.
        other_class: Classes of boxes that are not asked for.
    """

    file: str
    empty: list[LeftOut] = field(default_factory=list)
    without_mask: list[LeftOut] = field(default_factory=list)
    without_image: list[LeftOut] = field(default_factory=list)
    unlisted: list[LeftOut] = field(default_factory=list)
    unannotated: list[LeftOut] = field(default_factory=list)
    other_class: list[LeftOut] = field(default_factory=list)

    def left_out(self) -> list[LeftOut]:
        """Return all that is left out, each with its reason."""
        return [
            *self.empty,
            *self.without_mask,
            *self.without_image,
            *self.unlisted,
            *self.unannotated,
        ]

    def notes(self) -> list[str]:
        """Return a line for each kind of what is left out."""
        kinds = (
            (self.empty, "box", "of no area inside the image", ""),
            (
                self.without_mask,
                "box",
                "without a mask, where others have one",
                "; data.masks=false takes all boxes, and no masks",
            ),
            (self.without_image, "image", "without a file on disk", ""),
            (self.unlisted, "box", "of no image that is listed", ""),
            (self.unannotated, "image", "without annotations", ""),
            (self.other_class, "box", "of classes that data.classes does not name", ""),
        )
        return [
            f"left out: {counted(len(files), noun)} {why} ({_each_once(files)}), by "
            f"{shown(self.file)}{way_out}"
            for files, noun, why, way_out in kinds
            if files
        ]


def _each_once(files: Sequence[LeftOut]) -> str:
    return some(list(dict.fromkeys(file.name for file in files)))


def fitted(box: Sequence[float], width: float, height: float) -> list[float] | None:
    """Return a box cut off at the borders of its image; None if nothing of it remains.

    Args:
        box: x_min, y_min, x_max, y_max.
        width: Width of the image in the unit of the box.
        height: Height of the image.

    Raises:
        ValueError: If a coordinate is not finite.
    """
    if not all(map(math.isfinite, box)):
        raise ValueError(f"has the box {list(box)}, whose numbers are not all finite")
    x_min, x_max = (min(max(x, 0.0), width) for x in box[::2])
    y_min, y_max = (min(max(y, 0.0), height) for y in box[1::2])
    return [x_min, y_min, x_max, y_max] if x_max > x_min and y_max > y_min else None


def settle_masks(images: Iterable[Objects], tally: Tally, *, wanted: bool) -> bool:
    """Leave out objects without a mask where others have one, or all masks where none is wanted.

    Args:
        images: The images of a split, which are changed.
        tally: Where objects that are left out are written down.
        wanted: Whether masks are wanted.

    Returns:
        Whether the objects that remain have masks.
    """
    images = list(images)
    has_masks = wanted and any(
        shape is not None and not crowd
        for objects in images
        for shape, crowd in zip(objects.shapes, objects.crowd, strict=True)
    )
    for objects in images:
        if not has_masks:
            objects.shapes = []
            continue
        kept = [shape is not None for shape in objects.shapes]
        for box, stays in zip(objects.boxes, kept, strict=True):
            if not stays:
                tally.without_mask.append(LeftOut(f"{objects.name} {box}", "it has no mask"))
        if not all(kept):
            objects.keep(kept)
    return has_masks


def note_on_classes(split: str, images: Iterable[Objects], classes: Sequence[str]) -> list[str]:
    """Return a line on the classes that no box of a split has."""
    numbers = Counter(label for objects in images for label in objects.labels)
    missing = [name for label, name in enumerate(classes) if not numbers[label]]
    if not missing:
        return []
    return [f"no box of {split} is of class {some(missing, MOST_NAMED)}"]

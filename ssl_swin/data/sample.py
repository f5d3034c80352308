"""The decoded sample: pixels and all that an augmentation changes together with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sample:
    """One decoded sample.

    Attributes:
        pixels: Pixels of the image, (C, H, W) of uint8, uint16 or float32.
        mask: Class of each pixel, (H, W) of uint8 or int64; None where none was asked for.
        boxes: Bounding boxes in pixels, (N, 4) of float32 as x_min, y_min, x_max, y_max, where
            (0, 0) is the outer corner of the first pixel; None where none were asked for.
        box_labels: Class of each box, int64 (N,); None without boxes.
        label: Class of the whole image; None without a label.
        name: Name of the sample in its data set.
        members: Other decoded members by name, such as "json".
        box_masks: Pixels of the object in each box, (N, H, W) of uint8, 0 and 1; None without.
        box_crowd: Whether each box stands for a crowd of objects, bool (N,); None where unknown.
        box_areas: Pixels of the object in each box, float32 (N,); None where unknown.
    """

    pixels: Tensor
    mask: Tensor | None = None
    boxes: Tensor | None = None
    box_labels: Tensor | None = None
    label: int | None = None
    name: str = ""
    members: Mapping[str, Any] = field(default_factory=dict)
    box_masks: Tensor | None = None
    box_crowd: Tensor | None = None
    box_areas: Tensor | None = None

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the image."""
        height_px, width_px = self.pixels.shape[-2:]
        return height_px, width_px

    @property
    def is_annotated(self) -> bool:
        """Whether there is a mask or boxes, which must follow the pixels."""
        return self.mask is not None or self.boxes is not None

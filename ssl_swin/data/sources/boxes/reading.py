"""How annotations of boxes are read; what is not a matter of course is an option."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from ssl_swin.arguments import EACH_ONCE, Name, checked
from ssl_swin.data.split_names import split_of_name
from ssl_swin.errors import UserError

Kind = Literal["coco", "voc", "yolo"]
SPLITS = ("train", "val", "test")


@checked
@dataclass(frozen=True)
class BoxReading:
    """How a folder of images with boxes is read.

    Attributes:
        annotations: What holds the boxes or says where they are, where it is not to be found by
            itself: a path, or one for each split, as {"train": PATH, "val": PATH}. COCO: JSON
            files, or a folder of them. VOC: a folder of XML files, or lists of names by split.
            YOLO: data.yaml, or a folder of label files. Paths are relative to the folder of the
            images, or else to the working directory.
        masks: Whether masks of objects are read with their boxes, where there are any.
        classes: Names of the classes by label; None takes what the data says.
        first_pixel: What the first pixel is called in VOC's files: 1, where corners are whole
            pixels of the object, or 0, where they are edges; None goes by the files.
        leave_out: Paths below the folder that are passed over; `*` stands for any characters.
        exif_rotation: Whether images will be turned as their EXIF orientation says; None where
            nobody knows yet.
    """

    annotations: str | Mapping[str, str] | None = None
    masks: bool = True
    classes: Annotated[Sequence[Name], MinLen(1), EACH_ONCE] | None = None
    first_pixel: Literal[0, 1] | None = None
    leave_out: Sequence[str] = ()
    exif_rotation: bool | None = None

    def given(self, root: Path) -> dict[str, Path]:
        """Return the paths of `annotations` by split, under "" for one without a split.

        Args:
            root: The folder of the images.

        Raises:
            UserError: If a path does not exist, or a split has an unknown name.
        """
        if self.annotations is None:
            return {}
        if isinstance(self.annotations, str):
            return {"": _existing(root, self.annotations)}
        unknown = [split for split in self.annotations if split not in SPLITS]
        if unknown or not self.annotations:
            raise UserError(
                f"data.annotations has a path for {' and '.join(SPLITS)}, or for some of them, got "
                f"{unknown[0] if unknown else 'none'!r}"
            )
        return {split: _existing(root, path) for split, path in self.annotations.items()}


def split_of_path(path: Path) -> str | None:
    """Return the split that the last fitting part of a path names, None for none."""
    found = [split_of_name(part) for part in path.parts]
    return next((split for split in reversed(found) if split is not None), None)


def _existing(root: Path, path: str) -> Path:
    for place in (root / path, Path(path)):
        if place.exists():
            return place
    raise UserError(f"data.annotations={path}: there is no such file in {root} or here")


def is_number(value: Any) -> bool:
    """Return whether a value of a file is a number that a float holds; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max

"""The numbers of images and categories in files of COCO: those of the data, or ones from 1 on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.sources.boxes.coco_file import image_entries, read_coco_file
from ssl_swin.data.sources.boxes.dataset import BoxDataset


@dataclass(frozen=True)
class CocoIds:
    """What images and classes are called in a file of results.

    Attributes:
        categories: Number of each class, by label.
        images: Number of each image, by its name; empty where the data has none.
        note: A line where numbers of the data could not be taken; else empty.
    """

    categories: tuple[int, ...]
    images: Mapping[str, int | str] = field(default_factory=dict)
    note: str = ""

    def image(self, name: str, row: int) -> int | str:
        """Return the number of an image.

        Args:
            name: Its name in the data.
            row: Its row in the result, from 0.
        """
        return self.images.get(name, row + 1) if self.images else row + 1


def coco_ids(dataset: ImageDataset, classes: Sequence[str]) -> CocoIds:
    """Return the numbers of a data set's images and of a detector's classes.

    Args:
        dataset: The images; those of one JSON file of COCO have numbers.
        classes: Names of the detector's classes, by label.
    """
    own = tuple(range(1, len(classes) + 1))
    if not isinstance(dataset, BoxDataset) or not dataset.source.lower().endswith(".json"):
        return CocoIds(own)
    file = read_coco_file(Path(dataset.source))
    number_of = {name: number for number, name in file.names.items()}
    if missing := [name for name in classes if name not in number_of]:
        return CocoIds(
            own,
            note=f"{file.path} has no category {missing[0]!r}, so that images and categories are "
            "counted from 1 on",
        )
    images = {name: number for number, (name, _) in image_entries(file).items()}
    return CocoIds(tuple(number_of[name] for name in classes), images)

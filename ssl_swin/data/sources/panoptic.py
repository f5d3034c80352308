"""COCO's panoptic masks as masks of classes: the ids of segments, and a list of what they are.

A panoptic mask is a PNG of colours, in which R + 256 G + 65536 B is the id of a segment and 0 is
none. A JSON file lists the segments of each mask with their categories.
"""

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ssl_swin.data.dataset import DatasetWrapper, ImageDataset
from ssl_swin.data.decoding import decode_mask
from ssl_swin.data.encoded import MASK, EncodedSample, Member
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.mask_colours import FIRST_COLOUR
from ssl_swin.data.no_class import NoClass
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted
from ssl_swin.quoting import shell_path

NO_CLASS = 255  # value of pixels of no segment
NO_SEGMENT = 0  # id of them
_NO_LIST = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class PanopticLists:
    """What the segments of masks are.

    Attributes:
        classes: Names of the categories, in the order of the file; a label is a place in it.
        segments: By the name of a mask's file without ending: ids of its segments, int64 (N,) in
            ascending order, and their labels, uint8 (N,).
        source: The files, for messages.
        digest: 16 hex digits of their contents.
    """

    classes: tuple[str, ...]
    segments: dict[str, tuple[NDArray[np.int64], NDArray[np.uint8]]]
    source: str
    digest: str


class PanopticDataset(DatasetWrapper):
    """Samples whose masks of ids become masks of classes."""

    def __init__(self, dataset: ImageDataset, lists: PanopticLists) -> None:
        """Wrap a data set.

        Args:
            dataset: Images with masks; each mask has the name of its image.
            lists: What their segments are.
        """
        super().__init__(dataset)
        self.lists = lists
        self.fingerprint = fingerprint((dataset.fingerprint, "panoptic"), lists.digest.encode())

    def __getitem__(self, index: int) -> EncodedSample:
        encoded = self.dataset[index]
        if MASK not in encoded.members:
            return encoded
        content = io.BytesIO()
        Image.fromarray(self._classes_of(encoded)).save(content, "PNG")
        return encoded.with_member(MASK, Member(content.getvalue(), "png"))

    def _classes_of(self, encoded: EncodedSample) -> NDArray[np.uint8]:
        """Return the class of each pixel, `NO_CLASS` for none: (H, W).

        Raises:
            UserError: If the mask cannot be read.
            NoClass: If a segment of it is not listed.
        """
        ids = decode_mask(encoded).numpy()
        numbers = _little_endian(ids - FIRST_COLOUR) if ids.max() >= FIRST_COLOUR else ids
        known = self.lists.segments.get(Path(encoded.name).stem)
        if known is None:
            raise NoClass(
                f"{self.lists.source} does not list the mask of {encoded.name}",
                "give the file of this split by --panoptic",
            )
        found, places = np.unique(numbers, return_inverse=True)
        own, labels = known
        at = np.searchsorted(own, found).clip(max=max(len(own) - 1, 0))
        is_known = own[at] == found if len(own) else np.zeros(len(found), bool)
        if (unknown := found[~is_known & (found != NO_SEGMENT)]).size:
            raise NoClass(
                f"the mask of {encoded.name} has the segment {unknown[0]}, and "
                f"{self.lists.source} lists {counted(len(own), 'other')} of it",
                "give the file that belongs to these masks, and masks that were saved without loss",
            )
        classes = np.full(len(found), NO_CLASS, np.uint8)
        classes[is_known] = labels[at[is_known]]
        told: NDArray[np.uint8] = classes[places.reshape(numbers.shape)]
        return told


def read_panoptic(paths: Sequence[Path]) -> PanopticLists:
    """Read the lists of segments.

    Args:
        paths: JSON files of COCO's panoptic form, with the same categories.

    Raises:
        UserError: If one cannot be read or is of another form, if they differ in their categories,
            list a mask twice, or have more classes than a mask of 8 bits can tell.
    """
    classes: tuple[str, ...] = ()
    segments: dict[str, tuple[NDArray[np.int64], NDArray[np.uint8]]] = {}
    contents = []
    for path in paths:
        try:
            contents.append(path.read_bytes())
            content = json.loads(contents[-1])
            names, found = _parsed(content)
        except OSError as error:
            raise UserError(f"cannot read --panoptic {shell_path(path)}: {error}") from error
        except _NO_LIST as error:
            raise UserError(
                f"--panoptic {shell_path(path)} is no list of panoptic masks, JSON of categories "
                f"and of annotations with file_name and segments_info: {error!r}"
            ) from error
        if classes and names != classes:
            raise UserError(f"{path} has other categories than {paths[0]}")
        if twice := found.keys() & segments.keys():
            raise UserError(f"{path} lists the mask {min(twice)} a second time")
        classes = names
        segments |= found
    if len(classes) >= NO_CLASS:
        raise UserError(
            f"{paths[0]} has {len(classes)} categories, and masks of 8 bits tell {NO_CLASS} at most"
        )
    source = ", ".join(path.name for path in paths)
    return PanopticLists(classes, segments, source, fingerprint([source], b"".join(contents)))


def _parsed(
    content: Any,
) -> tuple[tuple[str, ...], dict[str, tuple[NDArray[np.int64], NDArray[np.uint8]]]]:
    """Return the names of classes, and segments by the names of masks.

    Raises:
        One of _NO_LIST: If it is no such list, or has a category, mask or segment twice.
    """
    categories = [(category["id"], str(category["name"])) for category in content["categories"]]
    label_of = {number: label for label, (number, _) in enumerate(categories)}
    _check_once(number for number, _ in categories)
    _check_once(Path(annotation["file_name"]).stem for annotation in content["annotations"])
    segments = {}
    for annotation in content["annotations"]:
        told = sorted(
            (int(segment["id"]), label_of[segment["category_id"]])
            for segment in annotation["segments_info"]
        )
        _check_once(number for number, _ in told)
        ids = np.array([number for number, _ in told], np.int64)
        labels = np.array([min(label, NO_CLASS) for _, label in told], np.uint8)
        segments[Path(annotation["file_name"]).stem] = ids, labels
    if not categories or not segments:
        raise ValueError("it lists no category or no mask")
    return tuple(name for _, name in categories), segments


def _check_once(keys: Iterable[Any]) -> None:
    """Raise a ValueError if one comes twice."""
    most_often = Counter(keys).most_common(1)
    if most_often and most_often[0][1] > 1:
        raise ValueError(f"{most_often[0][0]} is in it twice")


def _little_endian(colours: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return R + 256 G + 65536 B of colours that are 65536 R + 256 G + B."""
    red, green, blue = colours >> 16, colours >> 8 & 255, colours & 255
    numbers: NDArray[np.int64] = red + (green << 8) + (blue << 16)
    return numbers

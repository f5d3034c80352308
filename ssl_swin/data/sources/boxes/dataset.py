"""Images with the boxes that annotations have of them, by number."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.dataset import NO_LABEL, ImageDataset
from ssl_swin.data.encoded import IMAGE, EncodedSample, Member
from ssl_swin.data.file_sizes import file_sizes
from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of, extension_of_content
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.images.axes import AmbiguousAxes
from ssl_swin.data.images.decode import orientation_of, probe_image
from ssl_swin.data.images.orientation import is_transposed
from ssl_swin.data.sources.boxes.masks import run_lengths
from ssl_swin.data.sources.boxes.objects import Objects
from ssl_swin.errors import UserError

MOST_LOOKED_AT = 16  # images whose size is compared before anything else

Size = tuple[int, int]


class UnfitImage(UserError):
    """An image that cannot be read, or of another size than its annotations say."""


class BoxDataset(ImageDataset):
    """Image files, each with the member `boxes`.

    The annotations of all images lie in one text, which worker processes share: as many objects
    would take ten times the memory.
    """

    def __init__(
        self,
        images: Sequence[Objects],
        classes: Sequence[str],
        *,
        source: str,
        with_boxes: bool = True,
        exif_rotation: bool | None = None,
    ) -> None:
        """Keep what is known of the images; some of them are opened to compare their sizes.

        Args:
            images: The images, in their order.
            classes: Names of the classes by label.
            source: Where the annotations are, for messages.
            with_boxes: Whether the boxes are read. Without them, images have no class.
            exif_rotation: Whether images will be turned as EXIF says; None where nobody knows yet.

        Raises:
            UnfitImage: If an image has another size than its annotations say.
        """
        self.source = source
        self.with_boxes = with_boxes
        self.exif_rotation = exif_rotation
        self.classes = tuple(classes) if with_boxes else ()
        self._paths, self._names = (
            np.array([str(value).encode(errors="surrogateescape") for value in values])
            for values in ([each.image for each in images], [each.name for each in images])
        )
        records = [_record(objects) if with_boxes else b"" for objects in images]
        self._text = b"".join(records)
        self._ends = np.cumsum([len(record) for record in records], dtype=np.int64)
        listing = b"\0".join([*self._names.tolist(), self._text])
        self.fingerprint = fingerprint(self.classes, listing)
        if with_boxes:
            self._compare_some_sizes()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> EncodedSample:
        """Read an image and its boxes.

        Raises:
            OSError: If the image cannot be read.
            UnfitImage: If it is damaged, or has another size than its annotations say.
        """
        path, name = self._path(index), _text(self._names[index])
        data = path.read_bytes()
        extension = extension_of(path.name)
        if extension not in IMAGE_EXTENSIONS:
            extension = extension_of_content(data)
        sample = EncodedSample.of_image(data, extension, None, name)
        if not self.with_boxes:
            return sample
        start = int(self._ends[index - 1]) if index else 0
        record = json.loads(self._text[start : int(self._ends[index])])
        try:
            size_px = self._size(data, record["size"], str(path))
            content = _content(record, size_px)
        except UserError:
            raise
        except ValueError as error:
            raise UnfitImage(f"the boxes of {path} by {self.source}: {error}") from error
        return sample.with_member(BOXES, Member(json.dumps(content).encode(), "json"))

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that a sample may hold, "image" first."""
        return (IMAGE, BOXES) if self.with_boxes else (IMAGE,)

    def labels(self) -> NDArray[np.int64]:
        """Return -1 for every image: classes are those of boxes."""
        return np.full(len(self), NO_LABEL, np.int64)

    def image_sizes(self) -> NDArray[np.int64] | None:
        """Return the bytes of every image's file; None of more than 100,000 files."""
        return file_sizes(len(self), map(self._path, range(len(self))))

    def file_name(self, index: int) -> str:
        """Return the path of an image."""
        return str(self._path(index))

    def image_names(self) -> NDArray[np.bytes_]:
        """Return the names of the samples."""
        names: NDArray[np.bytes_] = self._names
        return names

    def _path(self, index: int) -> Path:
        return Path(_text(self._paths[index]))

    def _size(self, data: bytes, said: Sequence[int] | None, image: str) -> Size:
        """Return the size of an image as it will be decoded, held against what is said of it.

        Raises:
            UnfitImage: If they differ.
            ValueError: If its size cannot be told.
        """
        try:
            info = probe_image(data)
        except AmbiguousAxes:
            if said is None:
                raise
            return said[0], said[1]
        stored = (info.height_px, info.width_px)
        turned = stored[::-1] if is_transposed(orientation_of(data)) else stored
        if said is None:
            return turned if self.exif_rotation else stored
        size = (said[0], said[1])
        decoded = {True: [turned], False: [stored], None: [stored, turned]}[self.exif_rotation]
        if size in decoded:
            return size
        if size in (stored, turned):
            raise UnfitImage(
                f"{image} is {_by(decoded[0])} px (height x width), and {_by(size)} by "
                f"{self.source}, as its EXIF orientation makes the difference: set "
                f"data.exif_rotation={str(size == turned).lower()}"
            )
        raise UnfitImage(
            f"{image} is {_by(stored)} px (height x width), and {_by(size)} by {self.source}: are "
            "these the annotations of other images, or were the images scaled since?"
        )

    def _compare_some_sizes(self) -> None:
        chosen = np.linspace(0, len(self) - 1, min(MOST_LOOKED_AT, len(self))).astype(np.int64)
        for index in np.unique(chosen).tolist():
            start = int(self._ends[index - 1]) if index else 0
            said = json.loads(self._text[start : int(self._ends[index])])["size"]
            path = self._path(index)
            try:
                self._size(path.read_bytes(), said, str(path))
            except UnfitImage:
                raise
            except (OSError, ValueError):  # damaged, which the loader passes over and counts
                continue


def _record(objects: Objects) -> bytes:
    """Return what is kept of an image's annotations."""
    record: dict[str, Any] = {
        "size": objects.size_px,
        "boxes": objects.boxes,
        "labels": objects.labels,
    }
    if any(objects.crowd):
        record["crowd"] = objects.crowd
    if objects.areas and None not in objects.areas:
        record["areas"] = objects.areas
    if objects.shapes and None not in objects.shapes:
        record["masks"] = objects.shapes
    return json.dumps(record, separators=(",", ":")).encode()


def _content(record: dict[str, Any], size_px: Size) -> dict[str, Any]:
    """Return the lists of the member: in px, with masks as run lengths.

    Raises:
        ValueError: If a polygon cannot be drawn.
    """
    if record.pop("size") is None:
        height_px, width_px = size_px
        scale = [width_px, height_px] * 2
        record["boxes"] = [_times(box, scale) for box in record["boxes"]]
        if "masks" in record:
            record["masks"] = [
                [_times(polygon, (scale[:2] * len(polygon))[: len(polygon)]) for polygon in shape]
                for shape in record["masks"]
            ]
    if "masks" in record:
        record["masks"] = run_lengths(record["masks"], size_px)
    return record


def _times(values: Sequence[float], factors: Sequence[float]) -> list[float]:
    return [value * factor for value, factor in zip(values, factors, strict=True)]


def _text(name: bytes) -> str:
    return bytes(name).decode(errors="surrogateescape")


def _by(size: Size) -> str:
    return f"{size[0]} x {size[1]}"

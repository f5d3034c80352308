"""Opening images with boxes as COCO, Pascal VOC and YOLO have them."""

import gc
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ssl_swin.arguments import PathLike, checked
from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.sources.boxes import coco, voc, yolo
from ssl_swin.data.sources.boxes.dataset import BoxDataset
from ssl_swin.data.sources.boxes.found import (
    Annotated,
    note_on_shared,
    note_on_unlisted,
    unlisted_images,
)
from ssl_swin.data.sources.boxes.masks import check_polygons_can_be_drawn
from ssl_swin.data.sources.boxes.objects import note_on_classes, settle_masks
from ssl_swin.data.sources.boxes.places import ImageFiles
from ssl_swin.data.sources.boxes.reading import BoxReading, Kind
from ssl_swin.data.sources.left_out import shown
from ssl_swin.data.sources.opening import OpenedData
from ssl_swin.errors import UserError

Reader = Callable[[Path, BoxReading, ImageFiles], Annotated]
_READERS: Mapping[str, Reader] = {
    "coco": coco.read_coco,
    "voc": voc.read_voc,
    "yolo": yolo.read_yolo,
}
KINDS = tuple(_READERS)


@checked
def open_boxes(
    path: PathLike,
    kind: Kind,
    reading: BoxReading = BoxReading(),  # noqa: B008 - it is frozen
    *,
    members: Collection[str] | None = None,
    any_split: bool = False,
) -> OpenedData:
    """Open the splits of images with boxes.

    Args:
        path: The folder; or the JSON file of COCO or the data.yaml of YOLO.
        kind: Whose annotations they are: "coco", "voc" or "yolo".
        reading: How to read them.
        members: Names of the members to read; None reads the boxes. Without "boxes", images have
            no class.
        any_split: Whether a set without images to train on will do.

    Raises:
        UserError: If nothing is there, annotations are damaged or belong to other images, or there
            is no split to train on.
    """
    root = Path(path).absolute()
    if not root.exists():
        raise UserError(f"{root} does not exist. Give a folder of images and their annotations")
    with_boxes = members is None or BOXES in members
    try:
        with _garbage_left():
            return _opened(root, kind, reading, with_boxes=with_boxes, any_split=any_split)
    except UserError as error:  # it may hold names out of files, which need not be of one line
        raise UserError(shown(str(error))) from error


@contextmanager
def _garbage_left() -> Iterator[None]:
    """Collect no garbage for a while: millions of lists are made, and none goes in between."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _opened(
    root: Path, kind: str, reading: BoxReading, *, with_boxes: bool, any_split: bool
) -> OpenedData:
    files = ImageFiles(_folder(root, kind), reading.leave_out)
    found = _READERS[kind](root, reading, files)
    if "train" not in found.splits and not (any_split and found.splits):
        raise UserError(
            f"{root} has no split to train on, only: {', '.join(found.splits) or 'none'}. Give the "
            "annotations to train on as data.annotations={train: PATH}"
        )
    for each in found.splits.values():
        settle_masks(each.images, each.tally, wanted=reading.masks and with_boxes)
    if any(isinstance(s, list) for f in found.splits.values() for o in f.images for s in o.shapes):
        check_polygons_can_be_drawn()
    first = "train" if "train" in found.splits else next(iter(found.splits))
    unlisted = unlisted_images(found.splits, files)
    notes = [
        *found.notes,
        *(line for each in found.splits.values() for line in each.tally.notes()),
        *note_on_unlisted(unlisted),
        *note_on_shared(found.splits),
        *note_on_classes(first, found.splits[first].images, found.classes),
    ]
    splits: dict[str, ImageDataset] = {
        split: BoxDataset(
            each.images,
            found.classes,
            source=each.tally.file,
            with_boxes=with_boxes,
            exif_rotation=reading.exif_rotation,
        )
        for split, each in found.splits.items()
    }
    left_out = [file for each in found.splits.values() for file in each.tally.left_out()]
    return OpenedData(
        splits,
        found.classes_from if with_boxes else "those of boxes are not read",
        [shown(note) for note in notes],
        [*left_out, *unlisted],
    )


def _folder(root: Path, kind: str) -> Path:
    """Return the folder in which images are looked for.

    Raises:
        UserError: If a file is given for a kind that has none.
    """
    if root.is_dir():
        return root
    if kind == "voc":
        raise UserError(f"{root} is a file: give the folder of the images and XML files")
    return coco.folder_of(root) if kind == "coco" else yolo.folder_of(root)

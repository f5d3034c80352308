"""What `ssl-swin stats` measures: shards, images in any layout, or images with boxes."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ssl_swin.commands.box_options import BoxSource, box_source, open_box_source
from ssl_swin.commands.reading_options import reading_of, settings_of
from ssl_swin.quoting import without_interpolation

if TYPE_CHECKING:
    from ssl_swin.data.dataset import ImageDataset
    from ssl_swin.data.shards.index_file import ShardIndex


@dataclass(frozen=True)
class StatsSource:
    """A set that was opened.

    Attributes:
        sources: Data sets by split.
        base: The configuration of `data` that reads it.
        settings: What it has to be told besides.
        index: That of shards.
        notes: What was found out about the set.
        labels_images: Whether classes are those of whole images.
        names_classes: Whether the data names the classes of masks or boxes.
    """

    sources: "Mapping[str, ImageDataset]"
    base: str
    settings: dict[str, object]
    index: "ShardIndex | None" = None
    notes: list[str] = field(default_factory=list)
    labels_images: bool = True
    names_classes: bool = False


def open_source(args: argparse.Namespace, classes: Sequence[str] | None) -> StatsSource:
    """Open what the options of the command name.

    Args:
        args: Options of the command.
        classes: Names of classes that are given by an option.

    Raises:
        UserError: If it cannot be opened, or options contradict each other.
    """
    from ssl_swin.data.encoded import MASK
    from ssl_swin.data.inspection.check import classes_of_members
    from ssl_swin.data.shards.dataset import ShardDataset
    from ssl_swin.data.shards.index import load_index
    from ssl_swin.data.shards.index_file import INDEX_NAME
    from ssl_swin.data.sources.opening import open_data

    root = {"root": without_interpolation(str(args.folder))}
    boxes = box_source(argparse.Namespace(**{**vars(args), "images": args.folder}), classes)
    if boxes is not None:
        opened = open_box_source(args.folder, boxes)
        notes = [opened.classes_line(), *opened.notes]
        settings = {**root, **_settings_of_boxes(boxes)}
        return StatsSource(opened.splits, boxes.kind, settings, None, notes, False, True)
    if args.index_dir is None and not (args.folder / INDEX_NAME).exists():
        opened = open_data(args.folder, reading_of(args))
        named = opened.splits["train"].classes
        line = f"classes from: {opened.classes_from}" if named else opened.classes_line()
        settings = {**root, **settings_of(args)}
        base = "masks" if MASK in opened.splits["train"].members and not named else "folder"
        return StatsSource(opened.splits, base, settings, None, [line, *opened.notes])
    index = load_index(args.folder, args.index_dir)
    sources = {split: ShardDataset(index, split) for split in index.splits}
    place: dict[str, object] = {**root}
    if args.index_dir is not None:
        place["index_dir"] = without_interpolation(str(args.index_dir))
    is_of_images = classes_of_members(index) is None
    return StatsSource(sources, "shards", place, index, [], is_of_images, bool(index.classes))


def _settings_of_boxes(boxes: BoxSource) -> dict[str, object]:
    """Return the settings of `data=coco` and its kin that say the same as the options."""
    reading = boxes.reading
    annotations: object = reading.annotations
    if isinstance(annotations, str):
        annotations = without_interpolation(annotations)
    elif reading.annotations is not None:
        paths = dict(reading.annotations)  # type: ignore[arg-type]
        annotations = {split: without_interpolation(path) for split, path in paths.items()}
    asked: dict[str, object] = {
        "annotations": annotations,
        "masks": None if reading.masks else False,
        "classes": reading.classes and list(reading.classes),
        "first_pixel": reading.first_pixel,
        "leave_out": list(reading.leave_out) or None,
        "val_names": list(boxes.val_names) or None,
    }
    return {name: value for name, value in asked.items() if value is not None}

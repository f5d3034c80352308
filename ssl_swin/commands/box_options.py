"""Options of commands that read images with boxes: whose annotations they are, and where."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_swin.commands.parsing import path, text

if TYPE_CHECKING:
    from ssl_swin.data.sources.boxes.reading import BoxReading, Kind
    from ssl_swin.data.sources.opening import OpenedData

KINDS: tuple["Kind", ...] = ("coco", "voc", "yolo")
_OTHERS = ("labels", "val_labels", "masks", "no_labels", "no_splits", "plain_tars")
_OPTIONS = {  # of settings in messages
    r"data\.masks=false": "--no-masks",
    r"data\.annotations=\{train: (\w+)(, val: \w+)?\}": r"--KIND train=\1 --KIND val=\1",
    r"data\.annotations(=\{train: (\w+)\})?": "--KIND",
    r"data\.classes": "--classes",
    r"data\.first_pixel=(\d)": r"--first-pixel \1",
    r"data\.val_names(?:=| has )": "--val-names ",
    r"data\.root": "the first argument",
}


@dataclass(frozen=True)
class BoxSource:
    """Whose annotations are read, and how."""

    kind: "Kind"
    reading: "BoxReading"
    val_names: Sequence[str]


def add_box_options(parser: argparse._ActionsContainer, *, holds_out: bool = True) -> None:
    """Add the options to the parser of a command.

    Args:
        parser: Of the command, or a group of its options.
        holds_out: Whether the command may hold images out.
    """
    said = "can be repeated for splits, as train=PATH"
    titles = {
        "coco": "the boxes of a JSON file of COCO, or of those in a folder",
        "voc": "the boxes of a folder of XML files, as Pascal VOC has them",
        "yolo": "the boxes of a data.yaml of YOLO, or of a folder of label files",
    }
    for kind in KINDS:
        parser.add_argument(
            f"--{kind}",
            action="append",
            type=text,
            metavar="PATH",
            help=titles[kind] + (f"; {said}" if kind != "yolo" else ""),
        )
    parser.add_argument(
        "--first-pixel",
        type=int,
        choices=(0, 1),
        help="with --voc: 1 if corners are whole pixels counted from 1, 0 if they are edges "
        "counted from 0; by default the files tell",
    )
    parser.set_defaults(val_names=None)
    if not holds_out:
        return
    parser.add_argument(
        "--val-names",
        action="append",
        type=text,
        metavar="NAME",
        help="with these: images to hold out as val where there is no val split, instead of a "
        "share; * stands for any characters; can be repeated",
    )


def box_source(args: argparse.Namespace, classes: Sequence[str] | None) -> BoxSource | None:
    """Return whose boxes the options ask for; None if for none.

    Args:
        args: Options of the command.
        classes: Names of classes that are given by an option.

    Raises:
        UserError: If options contradict each other.
    """
    from ssl_swin.data.sources.boxes.reading import BoxReading
    from ssl_swin.errors import UserError

    given = [kind for kind in KINDS if getattr(args, kind)]
    if args.first_pixel is not None and given != ["voc"]:
        raise UserError(f"--first-pixel {args.first_pixel} is for --voc")
    if args.val_names and not given:
        raise UserError("--val-names is for --coco, --voc and --yolo")
    if not given:
        return None
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} exclude each other")
    kind = given[0]
    for other in _OTHERS:
        if getattr(args, other, None):
            raise UserError(f"--{kind} and --{other.replace('_', '-')} exclude each other")
    return BoxSource(
        kind,
        BoxReading(
            annotations=_annotations(kind, getattr(args, kind), Path(args.images)),
            masks=not args.no_masks,
            classes=classes,
            first_pixel=args.first_pixel,
            leave_out=tuple(args.leave_out),
        ),
        args.val_names or (),
    )


def open_box_source(images: Path, source: BoxSource, *, any_split: bool = False) -> "OpenedData":
    """Open the splits of images with boxes.

    Args:
        images: The folder of the images.
        source: Whose boxes.
        any_split: Whether a set without images to train on will do.

    Raises:
        UserError: As `open_boxes`, in the words of a command.
    """
    from ssl_swin.data.loading.holding_out import hold_out_names
    from ssl_swin.data.sources.boxes.opening import open_boxes
    from ssl_swin.errors import UserError

    try:
        opened = open_boxes(images, source.kind, source.reading, any_split=any_split)
        if source.val_names and "val" not in opened.splits:
            opened.splits |= hold_out_names(opened.splits["train"], source.val_names)
    except UserError as error:
        raise UserError(as_options(str(error), source.kind)) from error
    opened.notes = [as_options(note, source.kind) for note in opened.notes]
    opened.classes_from = as_options(opened.classes_from, source.kind)
    return opened


def as_options(message: str, kind: str) -> str:
    """Return a message about settings of data as one about options."""
    for setting, option in _OPTIONS.items():
        message = re.sub(setting, option.replace("KIND", kind), message)
    return message


def _annotations(kind: str, given: list[str], images: Path) -> str | dict[str, str] | None:
    """Return the path, or that of each split; None where the folder of the images holds it."""
    from ssl_swin.data.sources.boxes.reading import SPLITS
    from ssl_swin.errors import UserError

    by_split: dict[str, str] = {}
    for words in given:
        split, _, name = words.rpartition("=")
        split, name = (split, name) if split in SPLITS else ("", words)
        if split in by_split:
            raise UserError(f"--{kind} names two paths for {split or 'all splits'}: {words}")
        if not path(name).exists():
            raise UserError(f"--{kind} {words}: there is no such file or folder")
        by_split[split] = str(path(name).absolute())
    if "" not in by_split:
        return by_split
    if len(by_split) > 1:
        raise UserError(f"--{kind} names paths for splits, and one for all: {by_split['']}")
    is_same = Path(by_split[""]).resolve() == images.resolve()
    return None if is_same else by_split[""]

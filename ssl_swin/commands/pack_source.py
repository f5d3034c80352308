"""What `ssl-swin pack` packs where there are no boxes: images, with labels or masks of classes."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from ssl_swin.commands.reading_options import reading_of

if TYPE_CHECKING:
    from ssl_swin.data.dataset import ImageDataset
    from ssl_swin.data.sources.opening import OpenedData
    from ssl_swin.data.sources.panoptic import PanopticLists


def panoptic_lists(args: argparse.Namespace) -> "PanopticLists | None":
    """Return what the ids in panoptic masks are, where options tell.

    Args:
        args: Options of the command.

    Raises:
        UserError: If another option says what masks or images are, or a file cannot be read.
    """
    from ssl_swin.commands.box_options import KINDS
    from ssl_swin.data.sources.panoptic import read_panoptic
    from ssl_swin.errors import UserError

    if args.panoptic is None:
        return None
    others = (*KINDS, "classes", "labels", "val_labels", "class_of", "class_of_colour")
    for other in (*others, "reduce_zero_label", "no_masks"):
        if getattr(args, other):
            raise UserError(f"--panoptic and --{other.replace('_', '-')} exclude each other")
    return read_panoptic(args.panoptic)


def open_images(
    args: argparse.Namespace, classes: tuple[str, ...] | None, panoptic: "PanopticLists | None"
) -> "OpenedData":
    """Open images without boxes, with the labels and classes that options give.

    Args:
        args: Options of the command.
        classes: Names of the classes of masks, where an option gives them.
        panoptic: What the ids in masks are.

    Raises:
        UserError: As `open_data`, or if labels or classes do not fit.
    """
    from ssl_swin.commands.label_options import labelled
    from ssl_swin.data.sources.opening import open_data
    from ssl_swin.data.sources.panoptic import PanopticDataset

    reading = reading_of(args)
    if args.labels is not None or classes is not None:
        reading = replace(reading, labelled=False)
    opened = open_data(args.images, reading, args.val_labels)
    opened.splits, table_notes = labelled(args, opened.splits)
    opened.notes += table_notes
    if args.labels is not None:
        opened.classes_from = str(args.labels)
    if classes is not None:
        opened.splits, opened.classes_from = _named(opened.splits, classes), "--classes"
    if panoptic is not None:
        opened.classes_from = f"the categories of {panoptic.source}"
        opened.splits = {
            split: PanopticDataset(source, panoptic) for split, source in opened.splits.items()
        }
    return opened


def _named(
    sources: "dict[str, ImageDataset]", classes: tuple[str, ...]
) -> "dict[str, ImageDataset]":
    """Return data sets whose masks or boxes have these classes.

    Raises:
        UserError: If they have none.
    """
    from ssl_swin.data.box_lists import BOXES
    from ssl_swin.data.encoded import MASK
    from ssl_swin.data.sources.labelled import RelabelledDataset
    from ssl_swin.errors import UserError

    for split, source in sources.items():
        if not {MASK, BOXES} & {*source.members}:
            raise UserError(
                f"--classes names what masks and boxes hold, and the images of {split} have none: "
                "give the folder of the masks by --masks DIR, or leave --classes out"
            )
    return {split: RelabelledDataset(source, classes) for split, source in sources.items()}

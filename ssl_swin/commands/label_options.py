"""The options of `ssl-swin pack` that take labels from a table."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ssl_swin.commands.parsing import path, text
from ssl_swin.errors import UserError

if TYPE_CHECKING:
    from ssl_swin.data.dataset import ImageDataset
    from ssl_swin.data.sources.table_labels import LabelledSources

_COLUMNS = ("image", "label", "split")


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to a command that reads images."""
    parser.add_argument(
        "--labels",
        type=path,
        metavar="FILE",
        help="table of labels by image (.csv, .tsv, .jsonl, .json, .parquet); sub-folders are no "
        "classes then. A column called split divides a set without split folders",
    )
    for name in _COLUMNS:
        parser.add_argument(
            f"--{name}-column",
            type=text,
            metavar="COLUMN",
            help=f"column of --labels, if its name is not a usual one for {name}s"
            + ("; none ignores splits" if name == "split" else ""),
        )


def check_label_options(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other.

    Raises:
        UserError: If they do.
    """
    for name in _COLUMNS:
        if getattr(args, f"{name}_column") is not None and args.labels is None:
            raise UserError(f"--{name}-column is a column of a table: give it by --labels FILE")
    for other in ("no_labels", "val_labels"):
        if args.labels is not None and getattr(args, other):
            raise UserError(f"--labels and --{other.replace('_', '-')} exclude each other")
    for other in ("labels", "val_labels"):
        if args.classes is not None and getattr(args, other):
            raise UserError(
                f"--classes names what masks or boxes hold, and --{other.replace('_', '-')} gives "
                "images labels: give one of them"
            )


def labelled(args: argparse.Namespace, sources: "Mapping[str, ImageDataset]") -> "LabelledSources":
    """Return the data sets with the labels that the options ask for, and what is to be told.

    Args:
        args: Options of the command.
        sources: The images, by split.

    Raises:
        UserError: As `label_by_table`.
    """
    from ssl_swin.data.sources.table_labels import LabelledSources, label_by_table
    from ssl_swin.data.sources.table_roles import ColumnNames
    from ssl_swin.data.sources.table_unread import unread_labels

    if args.labels is None:
        is_told = args.no_labels or args.val_labels or args.classes
        notes = [] if is_told else unread_labels(args.images, sources)
        return LabelledSources(dict(sources), notes)
    columns = ColumnNames(args.image_column, args.label_column, args.split_column)
    return label_by_table(sources, args.labels, columns)

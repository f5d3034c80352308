"""Options of the commands that read images: what a folder or tar holds, where names mislead."""

import argparse
from typing import TYPE_CHECKING

from ssl_swin.commands.parsing import path, text
from ssl_swin.quoting import without_interpolation

if TYPE_CHECKING:
    from ssl_swin.data.sources.layout import Reading


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of a command."""
    parser.add_argument("--no-labels", action="store_true", help="leave labels out")
    parser.add_argument(
        "--leave-out",
        action="append",
        type=text,
        default=[],
        metavar="PATH",
        help="leave out what lies there below the folder; * stands for any characters; can be "
        "repeated",
    )
    parser.add_argument(
        "--no-splits", action="store_true", help="folders named like splits are like any other"
    )
    parser.add_argument(
        "--no-masks", action="store_true", help="what is named like masks is images like any other"
    )
    parser.add_argument(
        "--masks",
        type=path,
        metavar="DIR",
        help="folder of the masks of a folder of images, where names do not say so: each has the "
        "path and name of its image; the folder of the images itself, where NAME.png is the mask "
        "of NAME.jpg",
    )
    parser.add_argument(
        "--plain-tars", action="store_true", help="tars hold images, not samples of several files"
    )


def reading_of(args: argparse.Namespace) -> "Reading":
    """Return how to read, by the options that were given.

    Raises:
        UserError: If two contradict each other.
    """
    from ssl_swin.data.sources.layout import Reading
    from ssl_swin.errors import UserError

    if args.masks is not None and args.no_masks:
        raise UserError("--masks and --no-masks exclude each other")
    return Reading(
        labelled=not args.no_labels,
        leave_out=tuple(args.leave_out),
        splits=not args.no_splits,
        masks=not args.no_masks if args.masks is None else str(args.masks),
        plain_tars=args.plain_tars,
    )


def settings_of(args: argparse.Namespace) -> dict[str, object]:
    """Return the settings of `data=folder` that say the same as the options."""
    switches = {"labels": args.no_labels, "splits": args.no_splits, "masks": args.no_masks}
    settings: dict[str, object] = {key: False for key, is_off in switches.items() if is_off}
    if args.masks is not None:
        settings["masks"] = without_interpolation(str(args.masks))
    return settings | ({"leave_out": args.leave_out} if args.leave_out else {})

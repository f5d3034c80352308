"""Options of commands that say how image files are read, as `data.*` does for runs."""

import argparse
import re
from typing import TYPE_CHECKING, Any

from ssl_swin.arguments import Positive
from ssl_swin.commands.parsing import value_of

if TYPE_CHECKING:
    from ssl_swin.data.images.pixel_format import PixelFormat


def add_limit_options(
    parser: argparse.ArgumentParser, *, most_pixels: int = 10**9, most_bytes: int = 3 * 10**9
) -> None:
    """Describe how large an image may be.

    Args:
        parser: Of a command.
        most_pixels: Default of its height x width.
        most_bytes: Default of its bytes in memory.
    """
    parser.add_argument(
        "--max-image-pixels",
        type=value_of(Positive),
        default=most_pixels,
        metavar="N",
        help="height x width; a larger image is not read",
    )
    parser.add_argument(
        "--max-image-bytes",
        type=value_of(Positive),
        default=most_bytes,
        metavar="N",
        help="of the decoded image; a larger one is not read",
    )


def add_array_options(parser: argparse.ArgumentParser) -> None:
    """Describe where arrays have their channels, and what marks pixels without data."""
    parser.add_argument(
        "--channel-axis",
        choices=("first", "last"),
        help="where .npy and .npz of three axes hold their channels, if it cannot be told",
    )
    parser.add_argument(
        "--nodata",
        type=value_of(float),
        action="append",
        metavar="VALUE",
        help="stored value of pixels without data, such as -9999; may be repeated. NaN always is",
    )


def add_fill_option(parser: argparse.ArgumentParser) -> None:
    """Describe what takes the place of pixels without data."""
    parser.add_argument(
        "--fill",
        type=numbers,
        metavar="VALUE",
        help="stored value to put in the place of pixels without data, or one per channel: 0,7.5",
    )


def numbers(text: str) -> float | list[float]:
    """Return a number, or a list of those that commas separate.

    Raises:
        ArgumentTypeError: If it is neither.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a number, or numbers separated by commas, got {text!r}"
        ) from None
    return values[0] if len(values) == 1 else values


def indices(text: str) -> list[int]:
    """Return the whole numbers that commas separate, with or without brackets.

    Raises:
        ArgumentTypeError: If these are none.
    """
    try:
        return [int(part) for part in text.strip("[]").split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers from 0, separated by commas, got {text!r}"
        ) from None


def pixel_format(args: argparse.Namespace, **others: Any) -> "PixelFormat":
    """Return what the options of a command say; those that it lacks have their defaults.

    Args:
        args: The options.
        others: Settings that are no options of the command.

    Raises:
        UserError: If a value is not allowed.
    """
    from ssl_swin.data.images.pixel_format import PixelFormat
    from ssl_swin.errors import UserError

    try:
        return PixelFormat.from_settings({**vars(args), **others})
    except UserError as error:
        raise UserError(_about_options(str(error))) from error


def _about_options(message: str) -> str:
    """Return a message about settings as one about options."""
    return re.sub(r"data\.(\w+)(=?)", _as_option, message)


def _as_option(setting: re.Match[str]) -> str:
    name, assignment = setting.groups()
    return f"--{name.replace('_', '-')}{' ' * len(assignment)}"

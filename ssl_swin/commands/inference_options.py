"""Options of the commands that put images through a network."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_swin.arguments import Count, Portion, Positive, Workers
from ssl_swin.commands.box_options import BoxSource, open_box_source
from ssl_swin.commands.parsing import text, value_of
from ssl_swin.commands.pixel_options import (
    add_array_options,
    add_fill_option,
    add_limit_options,
    indices,
    pixel_format,
)
from ssl_swin.commands.reading_options import add_reading_options, reading_of
from ssl_swin.plurals import counted

if TYPE_CHECKING:
    from ssl_swin.data.dataset import ImageDataset
    from ssl_swin.inference.images import Images
    from ssl_swin.inference.predictors.base import Predictor
    from ssl_swin.inference.run import Computing
    from ssl_swin.weights.backbone import Backbone

IMAGES = (
    "whatever `ssl-swin pack` takes (a folder, an archive, a table, a list of paths), shards, or a "
    "URL or pipe of shards"
)


def add_inference_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the parser of a command."""
    parser.add_argument(
        "--batch-size", type=value_of(Positive), default=64, help="images at a time"
    )
    parser.add_argument(
        "--workers", type=value_of(Workers), default=2, help="loading processes; 0 is this one"
    )
    add_computing_options(parser)
    parser.add_argument("--split", type=text, metavar="NAME", help="the only split to take")
    parser.add_argument(
        "--max-bad",
        type=value_of(Count),
        metavar="N",
        help="stop when more images cannot be read (default: 50 and a thousandth of the images)",
    )
    parser.add_argument("--index-dir", type=text, help="folder of the shards' index, if another")
    parser.add_argument("--cache-dir", type=text, help="folder of the cache, for remote shards")
    add_image_options(parser)
    add_limit_options(parser)
    add_reading_options(parser)


def add_computing_options(parser: argparse.ArgumentParser) -> None:
    """Describe where the network computes, and how."""
    parser.add_argument("--device", type=text, default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of matrix products",
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Describe what is read of image files."""
    parser.add_argument("--bands", type=indices, metavar="0,1,2", help="channels of the files")
    parser.add_argument(
        "--pixel-dtype",
        choices=("uint8", "uint16", "float32"),
        default="uint8",
        help="of the images that the network was trained on, as data.dtype",
    )
    parser.add_argument(
        "--exif-rotation", action="store_true", help="turn pictures as their EXIF orientation says"
    )
    add_array_options(parser)
    add_fill_option(parser)


def add_answer_options(parser: argparse.ArgumentParser) -> None:
    """Describe what is told of the classes of an image."""
    parser.add_argument(
        "--top", type=value_of(Positive), default=5, metavar="K", help="classes of each image"
    )
    parser.add_argument(
        "--scores",
        choices=("probability", "logit"),
        default="probability",
        help="of classes; probabilities are calibrated where `ssl-swin calibrate` was run",
    )


def add_crop_option(parser: argparse.ArgumentParser, whose: str) -> None:
    """Describe the centre crop.

    Args:
        parser: Of a command.
        whose: Network whose own crop is taken if none is given, as "the classifier's".
    """
    parser.add_argument(
        "--crop-ratio",
        type=value_of(Portion),
        metavar="R",
        help=f"side of the centre crop over the shorter side of an image (default: {whose})",
    )


def images_of(
    args: argparse.Namespace, *, with_members: bool = False, boxes: "BoxSource | None" = None
) -> "Images":
    """Open the images that the options name, and print what is to be known of them.

    Args:
        args: The options.
        with_members: Whether the truth lies in a member of a sample, and is no class of it;
            --no-labels leaves either out.
        boxes: Whose annotations tell the boxes, where that is said.

    Raises:
        UserError: If there are none.
    """
    from ssl_swin.inference.images import open_images, together
    from ssl_swin.launch.data_settings import remote_cache

    if boxes is not None:
        opened = open_box_source(Path(args.images), boxes, any_split=True)
        images = together(opened.splits, args.images, args.split, opened.notes)
        return _noted(images)
    reading = reading_of(args)
    cache = remote_cache() | ({"dir": args.cache_dir} if args.cache_dir else {})
    images = open_images(
        args.images,
        reading=replace(reading, labelled=False) if with_members else reading,
        split=args.split,
        index_dir=args.index_dir,
        cache=cache,
        with_members=with_members and reading.labelled,
    )
    return _noted(images)


def _noted(images: "Images") -> "Images":
    for note in images.notes:
        print(f"note: {note}")
    return images


def computing_of(
    args: argparse.Namespace, dataset: "ImageDataset", network: "Backbone | Predictor"
) -> "Computing":
    """Return how images go through a network, as the options say.

    Args:
        args: The options.
        dataset: The images.
        network: Its size and channels are those of the images, and its crop if none is given.

    Raises:
        UserError: If a value is not allowed, or there is no such device.
    """
    from ssl_swin.inference.run import Computing
    from ssl_swin.inference.vectors import View
    from ssl_swin.launch.build import usable_device
    from ssl_swin.launch.data_settings import most_bad
    from ssl_swin.launch.resolvers import auto_device

    encoder = network.encoder
    pixels = pixel_format(args, channels=encoder.in_chans, dtype=args.pixel_dtype)
    return Computing(
        View(pixels, args.crop_ratio or network.crop_ratio),
        encoder.img_size_px,
        args.batch_size,
        args.workers,
        most_bad(len(dataset)) if args.max_bad is None else args.max_bad,
        usable_device(auto_device() if args.device == "auto" else args.device),
        args.precision,
    )


@contextmanager
def telling_what_is_kept() -> Iterator[None]:
    """Print, of work that is interrupted, what the interrupt's notes say is kept."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        print(*getattr(interrupt, "__notes__", ()), sep="\n", file=sys.stderr)
        raise


def told_of_bad(num_bad: int, listed: object) -> str:
    """Return a phrase on images that could not be read; nothing if there are none."""
    return f"; {counted(num_bad, 'image')} could not be read, listed in {listed}" if num_bad else ""

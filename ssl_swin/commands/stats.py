"""`ssl-swin stats`: what images a set holds, and the configuration that suits them."""

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_swin.arguments import Count, Seed, Workers
from ssl_swin.commands.parsing import path, value_of
from ssl_swin.commands.pixel_options import (
    add_array_options,
    add_limit_options,
    indices,
    pixel_format,
)
from ssl_swin.commands.places import check_new
from ssl_swin.commands.reading_options import add_reading_options
from ssl_swin.plurals import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_swin.commands.stats_source import StatsSource
    from ssl_swin.data.images.pixel_format import PixelFormat
    from ssl_swin.data.inspection.statistics import ImageKind, SetStatistics


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    from ssl_swin.commands.box_options import add_box_options
    from ssl_swin.commands.mask_options import add_mask_options

    parser = commands.add_parser(
        "stats",
        help="measure the images of a set: sizes, channels, mean and std",
        description="Opens a random part of the train split of shards, or of images that are not "
        "packed yet, and prints what data.channels, dtype, mean and std should be, and how many "
        "pixels, boxes and images each class of masks or boxes has.",
        usage="%(prog)s [options] folder",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=path, help="shards, or whatever `ssl-swin pack` takes")
    parser.add_argument("--index-dir", type=path, help="folder of the index, if another")
    parser.add_argument(
        "--images", type=value_of(Count), default=2000, help="how many to open; 0 is all"
    )
    parser.add_argument("--seed", type=value_of(Seed), default=0, help="of the choice of images")
    parser.add_argument(
        "--bands",
        type=indices,
        metavar="0,1,2",
        help="channels of the files to read, from 0, as data.bands",
    )
    parser.add_argument(
        "--exif-rotation",
        action="store_true",
        help="turn pictures as their EXIF orientation says, as data.exif_rotation",
    )
    add_array_options(parser)
    add_limit_options(parser)
    parser.add_argument(
        "--write", type=path, metavar="FILE", help="new data config, as conf/data/NAME.yaml"
    )
    add_reading_options(parser)
    add_box_options(parser)
    add_mask_options(parser)
    parser.add_argument(
        "--workers", type=value_of(Workers), default=2, help="processes; 0 is this one"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Measures, prints, and writes a configuration where one is asked for."""
    from ssl_swin.commands.annotation_lines import annotation_lines
    from ssl_swin.commands.mask_options import class_names, mask_overrides, member_check
    from ssl_swin.commands.stats_source import open_source
    from ssl_swin.data.inspection.statistics import measure_set
    from ssl_swin.data.shards.unread import unread_at_start
    from ssl_swin.files import write_atomically

    if args.write is not None:
        _check_place(args.write)
    classes = class_names(args)
    check = member_check(args, None if classes is None else len(classes))
    masks = check.masks
    pixels = pixel_format(args, fill=None if args.nodata is None else 0)  # marked, not replaced
    source = open_source(args, classes)
    images = source.sources["train"]
    statistics = measure_set(
        images,
        num_images=args.images,
        seed=args.seed,
        num_workers=args.workers,
        pixels=pixels,
        as_colours=masks.are_colours,
    )
    told_classes = classes or (() if source.labels_images else images.classes)
    for line in (
        *_of_set(source, statistics),
        *source.notes,
        *_of_images(statistics, pixels),
        *annotation_lines(statistics.annotations, masks, told_classes),
    ):
        print(line)
    for line in () if source.index is None else unread_at_start(source.index):
        print(f"note: {line}")
    values = _values(statistics, pixels)
    print(f"\n{_yaml(values)}", end="")
    if args.write is not None:
        config = {"defaults": [source.base, "_self_"], **source.settings, **values}
        write_atomically(args.write, f"{_header(args)}{_yaml(config)}")
        names = classes or (() if source.names_classes else None)
        told = mask_overrides(args, check.num_classes, names=names)
        print(f"\nwrote {args.write}; {_next(args.write, source, told)}")


def _check_place(path: Path) -> None:
    """Refuse a file that is there, or that Hydra would not find or read.

    Raises:
        UserError: If it is so.
    """
    from importlib import resources

    from ssl_swin.errors import UserError

    check_new(path)
    if path.suffix != ".yaml":
        raise UserError(f"{path} must end in .yaml, as conf/data/photos.yaml")
    if (resources.files("ssl_swin.conf") / "data" / path.name).is_file():
        raise UserError(
            f"{path}: data={path.stem} is the package's own file, which comes first. Choose "
            "another name"
        )


def _next(path: Path, source: "StatsSource", of_masks: Sequence[str]) -> str:
    """Return how to train with a configuration that was written, or where it must lie for that."""
    from ssl_swin.commands.next_training import training_line
    from ssl_swin.launch.config_files import user_folder
    from ssl_swin.quoting import as_argument, override

    if path.parent.name != "data":
        return "for a run to find it, move it to conf/data/"
    folder = path.parent.parent
    options = [] if folder.resolve() == user_folder() else ["--config-dir", as_argument(folder)]
    images = source.sources["train"]
    line = training_line(
        [override("data", path.stem)],
        images.members,
        holds_out=source.index is None or "val" in source.sources,
        of_masks=of_masks,
        options=options,
        num_train=max(1, len(images) * 9 // 10),  # some may be held out
    )
    return f"next: {line}"


def _of_set(source: "StatsSource", statistics: "SetStatistics") -> list[str]:
    index, sources = source.index, source.sources
    lines = [f"{split}: {counted(len(each), 'image')}" for split, each in sources.items()]
    labels, of_what = statistics.labels, "images opened"
    if index is not None:
        labels, of_what = index.extents("train")["label"], "training images"
    classes = sources["train"].classes
    if classes and source.labels_images:
        lines.append(f"classes: {len(classes)}, {_balance(labels, classes)} ({of_what})")
    number = f"{counted(statistics.num_images, 'image')} of train"
    if statistics.unreadable:
        number += f"; {len(statistics.unreadable)} cannot be read: {statistics.unreadable[0]}"
    return [*lines, f"opened: {number}"]


def _balance(labels: "NDArray[np.integer[Any]]", classes: Sequence[str]) -> str:
    import numpy as np

    counts = np.bincount(labels[labels >= 0], minlength=len(classes))[: len(classes)]
    fewest, most = int(counts.argmin()), int(counts.argmax())
    if counts[fewest] == counts[most]:
        return f"{counted(counts[most], 'image')} each"
    return (
        f"from {counts[fewest]} ({classes[fewest]}) to {counts[most]} ({classes[most]}) images "
        f"each, median {np.median(counts):g}"
    )


def _of_images(statistics: "SetStatistics", pixels: "PixelFormat") -> list[str]:
    import numpy as np

    kind, moments = statistics.kind, statistics.running
    heights_px, widths_px = statistics.heights_px, statistics.widths_px
    limits = zip(moments.lowest, moments.highest, strict=True)
    ranges = (f"{lowest:g} to {highest:g}" for lowest, highest in limits)
    fewer_ratio = statistics.num_with_fewer_channels / statistics.num_images
    lines = [
        _stored_as(statistics),
        f"fewer channels than {kind.channels}: {100 * fewer_ratio:.1f} % of the images",
        f"height: {_spread(heights_px)}",
        f"width: {_spread(widths_px)}",
        f"shorter side: {_spread(np.minimum(heights_px, widths_px))}",
        f"values per channel: {', '.join(ranges)}",
    ]
    constant = np.flatnonzero(statistics.std == 0).tolist()
    if constant:
        lines.append(f"note: channel {constant} never varies; std 1 stands in for its 0")
    if kind.channels in (2, 4):
        colours = kind.channels - 1
        lines.append(f"note: if the last channel is opacity, choose channels: {colours}")
    return [*lines, *_of_missing(statistics), *_of_orientation(statistics, pixels)]


def _of_missing(statistics: "SetStatistics") -> list[str]:
    from ssl_swin.data.images.missing import USUAL_NODATA

    lines = []
    if statistics.num_with_missing:
        lines.append(
            f"without data: {100 * statistics.missing_ratio:.3g} % of the values, in "
            f"{statistics.num_with_missing} of {statistics.num_images} images (not finite, or "
            "marked by nodata); they do not count above, and fill takes their place"
        )
    for value, number in statistics.named_nodata.most_common(1):
        lines.append(
            f"note: {number} of {statistics.num_images} images say that {value} marks pixels "
            f"without data (GDAL_NODATA): --nodata={value} leaves these out"
        )
    lowest = statistics.running.lowest.min()
    if not statistics.named_nodata and lowest in USUAL_NODATA:
        lines.append(
            f"note: the lowest value is {lowest:.9g}; if it marks pixels without data, "
            f"--nodata={lowest:.9g} leaves these out"
        )
    return lines


def _of_orientation(statistics: "SetStatistics", pixels: "PixelFormat") -> list[str]:
    if not statistics.num_turned:
        return []
    effect = (
        "they are turned by it" if pixels.exif_rotation else "exif_rotation: true would turn them"
    )
    return [
        f"note: {statistics.num_turned} of {statistics.num_images} images have an EXIF "
        f"orientation; {effect}"
    ]


def _stored_as(statistics: "SetStatistics") -> str:
    stored = statistics.kinds.most_common()
    if len(stored) == 1:
        return f"stored as: {_name(stored[0][0])}"
    kinds = ", ".join(f"{number} of {_name(kind)}" for kind, number in stored)
    return f"mixed: {kinds}; choose {_name(statistics.kind)}, as which they were read here"


def _name(kind: "ImageKind") -> str:
    return f"{kind.channels} channel{'s' * (kind.channels > 1)} {kind.dtype}"


def _spread(sizes_px: "NDArray[np.int64]") -> str:
    import numpy as np

    return f"{sizes_px.min()} to {sizes_px.max()} px, median {np.median(sizes_px):g}"


def _values(statistics: "SetStatistics", pixels: "PixelFormat") -> dict[str, Any]:
    values: dict[str, Any] = {
        "channels": statistics.kind.channels,
        "dtype": statistics.kind.dtype,
        "mean": _rounded(statistics.mean),
        "std": [value or 1.0 for value in _rounded(statistics.std)],
    }
    if pixels.bands is not None:
        values["bands"] = list(pixels.bands)
    if pixels.channel_axis is not None:
        values["channel_axis"] = pixels.channel_axis
    if pixels.exif_rotation:
        values["exif_rotation"] = True
    if pixels.nodata:
        values["nodata"] = _plain(pixels.nodata)
    if pixels.nodata or statistics.num_with_missing:
        values["fill"] = _plain(statistics.neutral_fill)
    return values


def _plain(numbers: Sequence[float]) -> list[float] | float:
    """Return a number alone, or a list of several; whole numbers without a point."""
    whole = [int(number) if number == int(number) else number for number in numbers]
    return whole[0] if len(whole) == 1 else whole


def _rounded(values: "NDArray[np.float64]") -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]


def _yaml(values: dict[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(values, default_flow_style=None, sort_keys=False, width=1000)
    return text


def _header(args: argparse.Namespace) -> str:
    from ssl_swin.commands.box_options import KINDS
    from ssl_swin.quoting import as_argument, shell_line

    options = ["--images", str(args.images), "--seed", str(args.seed)]
    options += [] if args.bands is None else ["--bands", ",".join(map(str, args.bands))]
    options += ["--exif-rotation"] * args.exif_rotation
    options += [] if args.channel_axis is None else ["--channel-axis", args.channel_axis]
    options += [f"--nodata={value:g}" for value in args.nodata or ()]
    for name in (*KINDS, "leave_out", "val_names"):
        option = f"--{name.replace('_', '-')}"
        options += [word for given in getattr(args, name) or () for word in (option, given)]
    for name in ("index_dir", "masks", "first_pixel", "classes"):
        if (value := getattr(args, name)) is not None:
            options += [f"--{name.replace('_', '-')}", as_argument(str(value))]
    for name in ("no_labels", "no_splits", "no_masks", "plain_tars"):
        options += [f"--{name.replace('_', '-')}"] * getattr(args, name)
    command = shell_line(["ssl-swin", "stats", as_argument(args.folder), *options])
    return f"# Measured on {date.today().isoformat()} with: {command}\n"

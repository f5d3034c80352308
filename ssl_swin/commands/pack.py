"""`ssl-swin pack`: images into WebDataset shards."""

import argparse
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from ssl_swin.arguments import Positive, RateBelow1, Seed, Workers
from ssl_swin.commands.parsing import path, value_of
from ssl_swin.commands.pixel_options import (
    add_array_options,
    add_fill_option,
    add_limit_options,
    pixel_format,
)
from ssl_swin.commands.places import check_link
from ssl_swin.commands.reading_options import add_reading_options
from ssl_swin.plurals import counted

if TYPE_CHECKING:
    from ssl_swin.data.member_check import MemberCheck
    from ssl_swin.data.packing.part import Part
    from ssl_swin.data.packing.plan import PackOptions
    from ssl_swin.data.shards.index_file import ShardIndex
    from ssl_swin.data.sources.opening import OpenedData


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    from ssl_swin.commands.box_options import add_box_options
    from ssl_swin.commands.label_options import add_label_options
    from ssl_swin.commands.mask_options import add_mask_options

    parser = commands.add_parser(
        "pack",
        help="pack images into WebDataset shards",
        description="Packs images into WebDataset shards, shuffled over the whole set, with an "
        "index. Cut short by whatever means, the same command goes on where it ended, to the same "
        "bytes.",
        epilog="IMAGES may be: a folder, where sub-folders are classes, or splits if named like "
        "them (train2017, Testing), and masks lie beside images (images/, masks/); with --coco, "
        "--voc or --yolo, the folder of images with boxes; "
        "ILSVRC2012_img_train.tar, or a folder of it and ILSVRC2012_img_val.tar; a "
        "folder of one tar per class (ImageNet-22k), or another tar of images; a parquet file or a "
        "folder of them, or what Hugging Face's save_to_disk wrote (pip install 'ssl_swin[hf]'); "
        "the binary archive of CIFAR-10 or CIFAR-100; a list of images (.txt of paths, .csv or "
        ".tsv with a column of them); or shards, to be shuffled anew. Pixels are taken as stored: "
        "EXIF rotation has an effect if a run asks for it, colour profiles have none.",
        usage="%(prog)s [options] images out",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("images", type=path, help="a folder or file, see below")
    parser.add_argument("out", type=path, help="folder for the shards; created if need be")
    parser.add_argument(
        "--shard-samples",
        type=value_of(Positive),
        help="images per shard (1000, or fewer for a small set)",
    )
    parser.add_argument(
        "--val-ratio",
        type=value_of(RateBelow1),
        default=0.02,
        help="share of train to hold out where there is no val split",
    )
    add_reading_options(parser)
    parser.add_argument(
        "--val-labels",
        type=path,
        metavar="FILE",
        help="class names of val images that have none, one per line, by sorted image names",
    )
    add_label_options(parser)
    add_mask_options(parser)
    parser.add_argument(
        "--panoptic",
        action="append",
        type=path,
        metavar="FILE",
        help="JSON of COCO's panoptic masks: what the ids in the masks are; can be repeated",
    )
    add_box_options(parser)
    parser.add_argument(
        "--max-short-side-px",
        type=value_of(Positive),
        metavar="N",
        help="scale larger images down to this shorter side, with masks and boxes (JPEG stays "
        "JPEG; other 8-bit images become PNG, all else .npy); a file that would not become smaller "
        "stays as it is",
    )
    parser.add_argument(
        "--jpeg-quality",
        type=value_of(Annotated[int, Ge(1), Le(100)]),
        default=92,
        metavar="N",
        help="of scaled JPEG, from 1 to 100",
    )
    add_array_options(parser)
    add_fill_option(parser)
    add_limit_options(parser)
    parser.add_argument(
        "--verify", action="store_true", help="decode every image, not only its header"
    )
    parser.add_argument("--seed", type=value_of(Seed), default=0, help="of the order of the images")
    parser.add_argument(
        "--workers", type=value_of(Workers), default=2, help="processes; 0 is this one"
    )
    parser.add_argument(
        "--part",
        metavar="K/N",
        help="write part K of N alone, from 1/N to N/N, in any order and at any time, such as the "
        "jobs of an array; ssl-swin index OUT joins them",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Packs, and says what came of it."""
    from ssl_swin.commands.box_options import box_source, open_box_source
    from ssl_swin.commands.label_options import check_label_options
    from ssl_swin.commands.mask_options import class_names, member_check
    from ssl_swin.commands.pack_source import open_images, panoptic_lists
    from ssl_swin.commands.packed import advise_on_pixels, lines_on_packing
    from ssl_swin.data.packing.pack import check_out, pack
    from ssl_swin.data.packing.part import Part
    from ssl_swin.data.packing.plan import PackOptions

    pixels = pixel_format(args)
    part = None if args.part is None else Part.parse(args.part)
    check_label_options(args)
    panoptic = panoptic_lists(args)
    classes = class_names(args) if panoptic is None else panoptic.classes
    others = member_check(args, None if classes is None else len(classes))
    check_link(args.out)
    check_out(args.images, args.out)
    boxes = box_source(args, classes)
    if boxes is None:
        opened = open_images(args, classes, panoptic)
    else:
        opened = open_box_source(args.images, boxes)
    for note in opened.notes:
        print(note)
    options = PackOptions(
        args.shard_samples,
        args.val_ratio,
        args.seed,
        args.max_short_side_px,
        args.verify,
        args.jpeg_quality,
        pixels,
    )
    try:
        if part is not None:
            _pack_part(args, opened, options, part, others)
            return
        report = pack(
            opened.splits,
            args.out,
            **{field.name: getattr(options, field.name) for field in fields(options)},
            num_workers=args.workers,
            left_out=opened.left_out,
            others=others,
        )
    except KeyboardInterrupt as interrupt:
        print(*getattr(interrupt, "__notes__", ()), sep="\n", file=sys.stderr)
        raise
    for line in lines_on_packing(report, opened, args.out):
        print(line)
    if advise_on_pixels(report, args.out, pixels):
        print(f"next: {_training_line(args, report.index, others.num_classes)}")


def _training_line(args: argparse.Namespace, index: "ShardIndex", num_classes: int | None) -> str:
    from ssl_swin.commands.mask_options import mask_overrides
    from ssl_swin.commands.next_training import training_line
    from ssl_swin.data.shards.dataset import ShardDataset
    from ssl_swin.quoting import override

    names = () if index.classes else None
    return training_line(
        ["data=shards", override("data.root", str(args.out))],
        ShardDataset(index, "train").members,
        holds_out="val" in index.splits,
        of_masks=mask_overrides(args, num_classes, names=names),
        num_train=index.num_samples("train"),
    )


def _pack_part(
    args: argparse.Namespace,
    opened: "OpenedData",
    options: "PackOptions",
    part: "Part",
    others: "MemberCheck",
) -> None:
    """Write one part, and say what came of it."""
    from ssl_swin.data.packing.in_parts import pack_part
    from ssl_swin.launch.command_line import words_of_ssl_swin
    from ssl_swin.quoting import as_argument, shell_line

    report = pack_part(
        opened.splits,
        args.out,
        part,
        options,
        num_workers=args.workers,
        left_out=opened.left_out,
        others=others,
    )
    shards = f"{report.num_shards} of {counted(report.num_shards_of_all, 'shard')}"
    print(f"part {part}: {counted(report.num_packed, 'image')} in {shards}")
    if report.skipped:
        print(f"left out: {counted(len(report.skipped), 'unreadable image')}")
    words = [*words_of_ssl_swin(), "index", as_argument(args.out)]
    print(f"next: when all {part.of} parts are done: {shell_line(words)}")

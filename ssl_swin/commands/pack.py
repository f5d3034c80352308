"""`ssl-swin pack`: images into WebDataset shards."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_swin.data.shards.index_file import ShardIndex

NUM_PROBED = 16  # images looked at to tell whether the set is of 8-bit colour pictures


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    from ssl_swin.commands.label_options import add_label_options

    parser = commands.add_parser(
        "pack",
        help="pack images into WebDataset shards",
        description="Packs images into WebDataset shards, shuffled over the whole set, with an "
        "index. Cut short by whatever means, the same command goes on where it ended, to the same "
        "bytes.",
        epilog="IMAGES may be: a folder, where sub-folders are classes, or splits if named train, "
        "val, test; ILSVRC2012_img_train.tar, or a folder of it and ILSVRC2012_img_val.tar; a "
        "folder of one tar per class (ImageNet-22k), or another tar of images; a parquet file or a "
        "folder of them, or what Hugging Face's save_to_disk wrote (pip install 'ssl_swin[hf]'); "
        "the binary archive of CIFAR-10 or CIFAR-100; or shards, to be shuffled anew. Pixels are "
        "taken as stored, here as in training: EXIF rotation and colour profiles have no effect.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("images", type=Path, help="a folder or file, see below")
    parser.add_argument("out", type=Path, help="folder for the shards; created if need be")
    parser.add_argument(
        "--shard-samples", type=int, help="images per shard (1000, or fewer for a small set)"
    )
    parser.add_argument(
        "--val-ratio",
        type=float,
        default=0.02,
        help="share of train to hold out where there is no val split",
    )
    parser.add_argument("--no-labels", action="store_true", help="leave labels out")
    parser.add_argument(
        "--val-labels",
        type=Path,
        metavar="FILE",
        help="class names of val images that have none, one per line, by sorted image names",
    )
    add_label_options(parser)
    parser.add_argument(
        "--max-short-side-px",
        type=int,
        metavar="N",
        help="scale larger images down to this shorter side (JPEG stays JPEG, of quality 92; other "
        "8-bit images become PNG, all else .npy)",
    )
    parser.add_argument(
        "--verify", action="store_true", help="decode every image, not only its header"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of the images")
    parser.add_argument("--workers", type=int, default=2, help="processes; 0 is this one")
    return parser


def run(args: argparse.Namespace) -> None:
    """Packs, and says what came of it."""
    from ssl_swin.commands.label_options import check_label_options, labelled
    from ssl_swin.data.packing.pack import pack
    from ssl_swin.data.packing.plan import SKIPPED_NAME
    from ssl_swin.data.sources.opening import open_datasets

    check_label_options(args)
    by_folders = not args.no_labels and args.labels is None
    opened = open_datasets(args.images, by_folders, args.val_labels)
    sources, notes = labelled(args, opened)
    for note in notes:
        print(note)
    try:
        report = pack(
            sources,
            args.out,
            shard_samples=args.shard_samples,
            val_ratio=args.val_ratio,
            seed=args.seed,
            max_short_side_px=args.max_short_side_px,
            verify=args.verify,
            num_workers=args.workers,
        )
    except KeyboardInterrupt as interrupt:
        print(*getattr(interrupt, "__notes__", ()), sep="\n", file=sys.stderr)
        raise
    index = report.index
    for split, shards in index.splits.items():
        num_images = index.num_samples(split)
        origin = "" if split in sources else ", held out of train"
        print(f"{split}: {_count(num_images, 'image')} in {_count(len(shards), 'shard')}{origin}")
    print(f"classes: {len(index.classes) or 'none'}")
    if report.skipped:
        number = _count(len(report.skipped), "unreadable image")
        print(f"left out: {number}, listed in {args.out / SKIPPED_NAME}")
    _advise_on_values(index, args.out)
    print(f"next: ssl-swin pretrain data=shards {shlex.quote(f'data.root={args.out}')}")


def _advise_on_values(index: "ShardIndex", out: Path) -> None:
    """Returns what must be set for images other than 8-bit colour, judging by most of the first."""
    from collections import Counter

    from ssl_swin.data.images.decode import probe_image
    from ssl_swin.data.shards.dataset import ShardDataset

    source = ShardDataset(index, "train")
    infos = [probe_image(source[number].data) for number in range(min(NUM_PROBED, len(source)))]
    [(kind, _)] = Counter((info.channels, info.dtype) for info in infos).most_common(1)
    if kind != (3, "uint8"):
        channels, dtype = kind
        print(
            f"images of {_count(channels, 'channel')}, {dtype}: data.channels, data.dtype, "
            f"data.mean and data.std must say so; see: ssl-swin stats {shlex.quote(str(out))}"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

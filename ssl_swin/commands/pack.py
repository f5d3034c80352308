"""`ssl-swin pack`: images into WebDataset shards (L3)."""

import argparse
import shlex
from pathlib import Path


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "pack",
        help="pack a folder of images into WebDataset shards",
        description="Packs images into WebDataset shards, shuffled, with an index. Sub-folders are "
        "classes; sub-folders named train, val, test are splits. Reads ImageNet-22k's tars and "
        "CIFAR-10's binary archive as they are.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="images, in sub-folders or not")
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
    parser.add_argument("--no-labels", action="store_true", help="sub-folders are not classes")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the images")
    parser.add_argument("--workers", type=int, default=2, help="processes; 0 is this one")
    return parser


def run(args: argparse.Namespace) -> None:
    """Packs, and says what came of it."""
    from ssl_swin.data.pack import SKIPPED_NAME, pack
    from ssl_swin.data.sources import open_sources

    sources = open_sources(args.folder, labelled=not args.no_labels)
    report = pack(
        sources,
        args.out,
        shard_samples=args.shard_samples,
        val_ratio=args.val_ratio,
        seed=args.seed,
        num_workers=args.workers,
    )
    index = report.index
    for split, shards in index.splits.items():
        num_images = index.num_samples(split)
        origin = "" if split in sources else ", held out of train"
        print(f"{split}: {_count(num_images, 'image')} in {_count(len(shards), 'shard')}{origin}")
    print(f"classes: {len(index.classes) or 'none'}")
    if report.skipped:
        number = _count(len(report.skipped), "unreadable image")
        print(f"left out: {number}, listed in {args.out / SKIPPED_NAME}")
    print(f"next: python pretrain.py data=shards {shlex.quote(f'data.root={args.out}')}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

"""The `ssl-swin` command: what is done to data before and between runs (L3).

Each handler imports what it needs, so that `--help` answers at once.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_swin import __version__
from ssl_swin.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments; None takes those of the process.

    Returns:
        Exit status: 0, 2 after a mistake of the user, 130 after Ctrl-C.
    """
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except UserError as error:
        print(f"ssl-swin: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ssl-swin: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ssl-swin", description="Tools around ssl_swin's runs.")
    parser.add_argument("--version", action="version", version=f"ssl-swin {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_pack(commands)
    return parser


def _add_pack(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
    parser.set_defaults(run=_pack)


def _pack(args: argparse.Namespace) -> None:
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

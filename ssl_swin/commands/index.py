"""`ssl-swin index`: writes down where in the shards each image lies."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_swin.errors import UserError
from ssl_swin.quoting import override

if TYPE_CHECKING:
    from ssl_swin.data.shards.index_file import ShardIndex


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "index",
        help="index WebDataset shards, here or at a URL",
        description="Writes index.json and index.bin, which say where in the shards each image "
        "lies. Shards at a URL are fetched one by one, looked into and deleted. Class names are "
        "kept from an index before, or read from classes.txt beside the shards (for a URL: in "
        "--out).",
    )
    parser.add_argument(
        "root",
        metavar="FOLDER_OR_URL",
        help="folder of shards, a URL (https://, s3://, ...), or 'pipe:COMMAND {name}'",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the index (default: beside local shards)"
    )
    parser.add_argument(
        "--shards",
        metavar="PATTERN",
        help="names at a URL, such as 'train-{000000..000099}.tar' (default: all)",
    )
    parser.add_argument("--workers", type=int, default=2, help="shards at a time (default: 2)")
    return parser


def run(args: argparse.Namespace) -> None:
    """Indexes, and says what came of it."""
    from ssl_swin.data.remote.fetch import is_remote
    from ssl_swin.launch.next_command import job_line

    if args.workers < 0:
        raise UserError(f"--workers must be at least 0, got {args.workers}")
    remote = is_remote(args.root)
    index = _index_remote(args) if remote else _index_local(args)
    for split, shards in index.splits.items():
        print(f"{split}: images {index.num_samples(split)}, shards {len(shards)}")
    print(f"classes: {len(index.classes) or 'none'}")
    overrides = [f"data={'remote' if remote else 'shards'}", override("data.root", args.root)]
    if args.out is not None:
        overrides.append(override("data.index_dir", str(args.out)))
    if "train" in index.splits:
        print(f"next: {job_line('pretrain', overrides, num_train=index.num_samples('train'))}")


def _index_local(args: argparse.Namespace) -> "ShardIndex":
    from ssl_swin.data.shards.indexing import build_index

    if args.shards is not None:
        raise UserError("--shards is for a URL; of a folder all shards are indexed")
    if not Path(args.root).is_dir():
        raise UserError(f"no shards: there is no folder {args.root}")
    return build_index(args.root, args.out, num_workers=args.workers)


def _index_remote(args: argparse.Namespace) -> "ShardIndex":
    from ssl_swin.data.remote.index import expand_names, index_remote, list_shards
    from ssl_swin.data.shards.indexing import read_classes

    if args.out is None:
        raise UserError(f"say where to write the index of {args.root}: --out DIR")
    names = list_shards(args.root) if args.shards is None else expand_names(args.shards)
    classes = read_classes(args.out, args.out)
    return index_remote(args.root, names, args.out, classes=classes, num_workers=args.workers)

"""`ssl-swin index`: writes down where in the shards each image lies."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_swin.arguments import Workers
from ssl_swin.commands.parsing import text, value_of
from ssl_swin.commands.places import check_link
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted
from ssl_swin.quoting import override

if TYPE_CHECKING:
    from ssl_swin.data.shards.index_file import ShardIndex
    from ssl_swin.data.shards.layout import SampleLayout


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
        "--out); --image and --label-key, too, are kept from an index before. Parts that "
        "ssl-swin pack --part has written are joined to what one process would have written.",
    )
    parser.add_argument(
        "root",
        type=text,
        metavar="FOLDER_OR_URL",
        help="folder of shards, a URL (https://, s3://, ...), or 'pipe:COMMAND {name}'",
    )
    parser.add_argument(
        "--out", type=text, help="folder for the index (default: beside local shards)"
    )
    parser.add_argument(
        "--shards",
        type=text,
        metavar="PATTERN",
        help="names at a URL, such as 'train-{000000..000099}.tar' (default: all)",
    )
    parser.add_argument(
        "--image",
        type=text,
        metavar="EXTENSION",
        help="which file of a sample is its image, where it holds several: left.jpg, or left for "
        "left.jpg and left.png alike (default: the first of plain jpg, png, ...)",
    )
    parser.add_argument(
        "--label-key",
        type=text,
        metavar="KEY",
        help="key of the label in a sample's .json file, as label or object.class; EXTENSION:KEY "
        "names another file of JSON, EXTENSION: a file that is a class name or number as a whole "
        "(default: the number in .cls)",
    )
    parser.add_argument(
        "--workers", type=value_of(Workers), default=2, help="shards at a time (default: 2)"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Indexes, and says what came of it."""
    from ssl_swin.data.remote.fetch import is_remote
    from ssl_swin.data.shards.unread import unread_after_indexing
    from ssl_swin.launch.next_command import job_line

    if args.out is not None:
        check_link(Path(args.out))
    remote = is_remote(args.root)
    layout = _layout(args)
    if not remote and _holds_parts(args):
        index = _joined(args)
    else:
        index = _index_remote(args, layout) if remote else _index_local(args, layout)
    for split, shards in index.splits.items():
        print(f"{split}: images {index.num_samples(split)}, shards {len(shards)}")
    print(f"classes: {len(index.classes) or 'none'}")
    for option, value in (("image", index.layout.image), ("label key", index.layout.label_key)):
        if value is not None:
            print(f"{option}: {value}")
    for line in unread_after_indexing(index, is_local=not remote):
        print(f"note: {line}")
    overrides = [f"data={'remote' if remote else 'shards'}", override("data.root", args.root)]
    if args.out is not None:
        overrides.append(override("data.index_dir", str(args.out)))
    if "train" in index.splits:
        print(f"next: {job_line('pretrain', overrides, num_train=index.num_samples('train'))}")


def _layout(args: argparse.Namespace) -> "SampleLayout":
    """Return what --image and --label-key say.

    Raises:
        UserError: If one is empty.
    """
    from ssl_swin.data.shards.layout import SampleLayout

    for option, value in (("--image", args.image), ("--label-key", args.label_key)):
        if value is not None and not value.strip(". :"):
            raise UserError(f"{option} is empty; leave it out for WebDataset's convention")
    return SampleLayout(args.image, args.label_key)


def _holds_parts(args: argparse.Namespace) -> bool:
    """Return whether the folder holds parts of a packing that are to be joined.

    Raises:
        UserError: If it does, and an option is given that is not for that.
    """
    from ssl_swin.data.packing.in_parts import holds_parts

    if not holds_parts(Path(args.root)):
        return False
    for name in ("out", "shards", "image", "label_key"):
        if getattr(args, name) is not None:
            raise UserError(
                f"{args.root} holds parts of a packing, which are joined where they are: leave "
                f"--{name.replace('_', '-')} out"
            )
    return True


def _joined(args: argparse.Namespace) -> "ShardIndex":
    from ssl_swin.data.packing.in_parts import join_parts
    from ssl_swin.data.packing.plan import SKIPPED_NAME

    report = join_parts(Path(args.root), num_workers=args.workers)
    print(f"joined the parts of {args.root}")
    if report.skipped:
        number = counted(len(report.skipped), "unreadable image")
        print(f"left out: {number}, listed in {Path(args.root) / SKIPPED_NAME}")
    if report.num_not_finite:
        print(
            f"note: {report.num_not_finite} images hold values that are not finite: set data.fill "
            "to what is to stand in their place, such as data.fill=0"
        )
    return report.index


def _index_local(args: argparse.Namespace, layout: "SampleLayout") -> "ShardIndex":
    from ssl_swin.data.shards.indexing import build_index

    if args.shards is not None:
        raise UserError("--shards is for a URL; of a folder all shards are indexed")
    if Path(args.root).is_file():
        raise UserError(f"{args.root} is a file. Give the folder that holds all shards of the set")
    if not Path(args.root).is_dir():
        raise UserError(f"no shards: there is no folder {args.root}")
    return build_index(args.root, args.out, layout=layout, num_workers=args.workers)


def _index_remote(args: argparse.Namespace, layout: "SampleLayout") -> "ShardIndex":
    from ssl_swin.data.remote.index import expand_names, index_remote, list_shards
    from ssl_swin.data.shards.previous_index import kept_classes, kept_layout

    if args.out is None:
        raise UserError(f"say where to write the index of {args.root}: --out DIR")
    out = Path(args.out)
    names = list_shards(args.root) if args.shards is None else expand_names(args.shards)
    layout = kept_layout(layout, [out])
    return index_remote(
        args.root,
        names,
        out,
        classes=kept_classes(layout, [out]),
        layout=layout,
        num_workers=args.workers,
    )

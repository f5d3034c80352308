"""`ssl-swin check`: are these shards sound?."""

import argparse
import json
from collections import Counter
from typing import TYPE_CHECKING

from ssl_swin.arguments import Workers
from ssl_swin.commands.parsing import path, value_of
from ssl_swin.commands.pixel_options import add_limit_options, pixel_format
from ssl_swin.commands.places import check_file
from ssl_swin.plurals import counted

if TYPE_CHECKING:
    from ssl_swin.data.inspection.check import CheckReport, Finding

MOST_LISTED = 20  # findings of a kind; --report has them all
MEANINGS = {
    "index": "what the index says of itself",
    "shard": "shards that are missing, damaged or not what the index says",
    "image": "images that cannot be read or decoded",
    "values": "images with values that are not finite, which need data.fill",
    "label": "images with a label outside the classes",
    "mask": "images with a mask of another size or a value of no class, or that cannot be read",
    "boxes": "images with boxes of no class, or that cannot be read",
    "useless": "images with boxes that training cuts or leaves out",
    "missing": "images without a mask or boxes, which training on these leaves out",
    "duplicate": "images with the same bytes as an earlier one of their split",
    "leak": "images with the same bytes as one of another split",
}

HINTS = {
    "mask": "if values stand for something else: --classes, --ignore-value, --reduce-zero-label, "
    "--class-of or --class-of-colour says it",
}


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    from ssl_swin.commands.mask_options import add_mask_options

    parser = commands.add_parser(
        "check",
        help="check shards against their index, and every image in them",
        description="Compares every shard with the index (size, structure, places, labels), "
        "decodes every image with its mask and boxes, and finds images with the same bytes. Exit "
        "status: 0 if all is sound (duplicates, values that are not finite, boxes that training "
        "cannot use, and images without a mask or boxes are a warning), 1 if not.",
        usage="%(prog)s [options] shards",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("shards", type=path, help="folder of shards with an index")
    parser.add_argument("--index-dir", type=path, help="folder of the index, if another")
    parser.add_argument("--fast", action="store_true", help="read the images, but decode none")
    parser.add_argument(
        "--workers", type=value_of(Workers), default=2, help="processes; 0 is this one"
    )
    add_mask_options(parser)
    add_limit_options(parser)
    parser.add_argument("--report", type=path, help="file for all findings, one JSON object a line")
    return parser


def run(args: argparse.Namespace) -> int:
    """Checks, and says what was found."""
    from ssl_swin.commands.mask_options import class_names, member_check
    from ssl_swin.data.inspection.check import check_shards, classes_of_members
    from ssl_swin.data.shards.index import load_index
    from ssl_swin.files import write_atomically

    if args.report is not None:
        check_file("--report", args.report)
    classes = class_names(args)
    index = load_index(args.shards, args.index_dir, check_shards=False)
    number = classes_of_members(index) if classes is None else len(classes)
    report = check_shards(
        index,
        decode=not args.fast,
        num_workers=args.workers,
        pixels=pixel_format(args),
        others=member_check(args, number),
    )
    for split, shards in index.splits.items():
        images = counted(index.num_samples(split), "image")
        print(f"{split}: {images} in {counted(len(shards), 'shard')}")
    for kind in MEANINGS:
        _list(kind, [finding for finding in report.findings if finding.kind == kind])
    if args.report is not None:
        lines = (json.dumps(finding._asdict()) + "\n" for finding in report.findings)
        write_atomically(args.report, "".join(lines))
    print(_verdict(report, "read" if args.fast else "decoded"))
    return 0 if report.is_sound else 1


def _list(kind: str, findings: "list[Finding]") -> None:
    if not findings:
        return
    splits = Counter(finding.split for finding in findings if finding.split)
    share = ", ".join(f"{number} in {split}" for split, number in splits.items())
    print(f"{kind}: {MEANINGS[kind]}: {share or len(findings)}")
    for _, _, shard, member, problem in findings[:MOST_LISTED]:
        print(f"  {shard} {member}: {problem}" if member else f"  {shard}: {problem}")
    if len(findings) > MOST_LISTED:
        print(f"  ... and {len(findings) - MOST_LISTED} more: --report FILE lists all")
    if hint := HINTS.get(kind):
        print(f"  {hint}")


def _verdict(report: "CheckReport", done: str) -> str:
    if report.is_sound:
        read = counted(report.num_read, "image")
        return f"sound: the shards are what the index says, {read} {done}"
    return f"not sound, see above; {counted(report.num_read, 'image')} could be read"

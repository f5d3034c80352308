"""`ssl-swin export`: a backbone for other implementations."""

import argparse

from ssl_swin.commands.import_ import FORMATS
from ssl_swin.commands.parsing import path, text
from ssl_swin.commands.places import check_new


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "export",
        help="write a backbone for another implementation",
        description="Writes a backbone under the names of another implementation. What that one "
        "cannot represent is refused before anything is written.",
    )
    parser.add_argument(
        "backbone",
        type=text,
        help="folder of a backbone or a run, also one that was stopped; a checkpoint; or whatever "
        "backbone= of the scripts takes",
    )
    parser.add_argument("out", type=path, help="file to write; a folder for huggingface")
    parser.add_argument("--to", choices=FORMATS, required=True, help="the implementation")
    return parser


def run(args: argparse.Namespace) -> None:
    """Exports, and says what became of every tensor."""
    check_new(args.out)
    from ssl_swin.display.waiting import waiting
    from ssl_swin.launch.artifacts import local_backbone
    from ssl_swin.weights.formats.exporting import export_weights
    from ssl_swin.weights.sources import default_cache

    folder = local_backbone(args.backbone, default_cache())
    with waiting(f"exporting {folder}"):
        report = export_weights(folder, args.out, to=args.to)
    for line in (*report.lines(), report.summary()):
        print(line)
    print(f"wrote {args.out}")

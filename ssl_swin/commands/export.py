"""`ssl-swin export`: a network for other implementations, or as a file that runs by itself."""

import argparse
from pathlib import Path

from ssl_swin.arguments import Side
from ssl_swin.commands.import_ import FORMATS
from ssl_swin.commands.parsing import path, text, value_of
from ssl_swin.commands.places import check_new
from ssl_swin.deploy.targets import TARGETS
from ssl_swin.errors import UserError


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "export",
        help="write a network for another implementation, or for deployment",
        description="Writes the weights of a backbone, classifier, segmenter or detector by the "
        f"names of another implementation ({', '.join(FORMATS)}), or the whole network as a file "
        f"that runs without this package ({', '.join(TARGETS)}): raw pixels in, normalisation "
        "inside, batches of any size. Such a file is run and compared before it gets its name. "
        "What cannot be represented is refused before anything is written.",
    )
    parser.add_argument(
        "backbone",
        type=text,
        help="folder of a backbone, a classifier, a segmenter or a run, also one that was stopped; "
        "a checkpoint; or whatever backbone= of the scripts takes",
    )
    parser.add_argument("out", type=path, help="file to write; a folder for huggingface")
    parser.add_argument(
        "--to", choices=(*FORMATS, *TARGETS), required=True, help="the implementation, or the kind"
    )
    parser.add_argument(
        "--outputs",
        choices=("scores", "embedding", "stages"),
        help="of a file for deployment: scores of classes before the softmax, one vector, or the "
        "map of each stage (default: scores of a classifier or a segmenter, else the vector)",
    )
    parser.add_argument(
        "--img-size-px",
        type=value_of(Side),
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the images that the file of a segmenter takes (default: its encoder's)",
    )
    parser.add_argument(
        "--pixel-dtype",
        choices=("uint8", "float32"),
        help="of the pixels that a file for deployment takes, as data.dtype (default: uint8)",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Exports, and says what became of every tensor, or how near the file is to its network."""
    check_new(args.out)
    from ssl_swin.display.waiting import waiting
    from ssl_swin.launch.artifacts import local_backbone
    from ssl_swin.weights.sources import default_cache

    if args.to in TARGETS:
        _deploy(args)
        return
    for option in ("outputs", "pixel_dtype", "img_size_px"):
        if getattr(args, option) is not None:
            name = f"--{option.replace('_', '-')}"
            raise UserError(f"{name} is for {', '.join(TARGETS)}; {args.to} takes weights alone")
    if _exported_task(args):
        return
    from ssl_swin.weights.formats.exporting import export_weights

    folder = local_backbone(args.backbone, default_cache())
    with waiting(f"exporting {folder}"):
        report = export_weights(folder, args.out, to=args.to)
    for line in (*report.lines(), report.summary()):
        print(line)
    print(f"wrote {args.out}")


def _exported_task(args: argparse.Namespace) -> bool:
    """Write a whole segmenter or detector, if it is one and there is a way; return whether.

    Raises:
        UserError: If the folder of one is to be written for an implementation that has none.
    """
    from ssl_swin.display.waiting import waiting
    from ssl_swin.weights import detector, segmenter
    from ssl_swin.weights.formats import detectors, segmenters

    given = Path(args.backbone)
    of_tasks = (
        (segmenter.FOLDER, segmenter.is_segmenter, segmenters.WRITTEN, segmenters.export_segmenter),
        (detector.FOLDER, detector.is_detector, detectors.WRITTEN, detectors.export_detector),
    )
    found = [
        (folder, name, written, export)
        for name, is_one, written, export in of_tasks
        for folder in (given, given / name)
        if is_one(folder)
    ]
    if not found:
        return False
    folder, name, written, export = found[0]
    if args.to not in written and folder != given:
        print(f"note: {args.to} has no {name}s, so the backbone is taken")
        return False
    with waiting(f"exporting {folder}"):
        report = export(folder, args.out, to=args.to)
    for line in (*report.lines(), report.summary()):
        print(line)
    print(f"wrote {args.out}")
    return True


def _deploy(args: argparse.Namespace) -> None:
    from ssl_swin.deploy.export import check_target, deploy
    from ssl_swin.deploy.targets.base import target_of
    from ssl_swin.display.waiting import waiting
    from ssl_swin.launch.artifacts import local_backbone
    from ssl_swin.weights.segmenter import FOLDER, is_segmenter
    from ssl_swin.weights.sources import default_cache

    check_target(target_of(args.to), args.out)
    given = Path(args.backbone)
    found = next(filter(is_segmenter, (given, given / FOLDER)), None)
    folder = found or local_backbone(args.backbone, default_cache())
    with waiting(f"exporting {folder} and comparing"):
        made = deploy(
            folder,
            args.out,
            to=args.to,
            outputs=args.outputs,
            dtype=args.pixel_dtype or "uint8",
            img_size_px=None if args.img_size_px is None else tuple(args.img_size_px),
        )
    for note in made.network.notes:
        print(f"note: {note}")
    print(f"{', '.join(made.network.output_names)}: {made.difference}")
    print(f"wrote {', '.join(map(str, made.files))}")
    print(f"run it: {made.usage}")

"""`ssl-swin import`: weights of other implementations become a backbone."""

import argparse
from pathlib import Path
from typing import Any

from ssl_swin.arguments import Above0, Positive, Side
from ssl_swin.commands.mask_options import add_mask_options
from ssl_swin.commands.parsing import path, text, value_of
from ssl_swin.commands.places import check_new
from ssl_swin.errors import UserError

TASKS = ("segmentation", "detection")
FORMATS = ("simmim", "swin", "timm", "huggingface", "torchvision", "openmmlab", "detectron2")


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "import",
        help="turn weights of another implementation into a backbone",
        description="Reads a Swin of the original code, timm, Hugging Face, torchvision, OpenMMLab "
        "or Detectron2, or a checkpoint of a run, and writes a backbone folder for finetune.py and "
        "linear_probe.py; of a published UPerNet, Mask R-CNN or Cascade, with --task, a segmenter "
        "or detector for `ssl-swin predict`. Nothing that the file holds is executed.",
    )
    parser.add_argument(
        "file",
        type=path,
        help=".pth, .bin, .safetensors or .ckpt file, its folder, or the folder of a run",
    )
    parser.add_argument("out", type=path, help="folder to write")
    parser.add_argument("--format", choices=FORMATS, help="what it is (default: recognised)")
    parser.add_argument(
        "--task", choices=TASKS, help="take the whole network of a task (default: its backbone)"
    )
    parser.add_argument(
        "--network",
        type=text,
        metavar="NAME",
        help="which of several networks in the file, as teacher (default: the only one, or of a "
        "network and its slow copy the network)",
    )
    parser.add_argument(
        "--img-size-px",
        type=value_of(Side),
        metavar="N",
        help="side of the image (default: as the file says); weights are resized if need be",
    )
    parser.add_argument(
        "--window-size",
        type=value_of(Positive),
        metavar="N",
        help="in tokens, if nothing in the file tells it",
    )
    parser.add_argument(
        "--pretrained-window-sizes",
        type=value_of(Positive),
        nargs="+",
        metavar="N",
        help="of Swin V2, one per stage, if nothing in the file tells them",
    )
    parser.add_argument("--mean", type=value_of(float), nargs="+", help="per channel, in [0, 1]")
    parser.add_argument("--std", type=value_of(Above0), nargs="+", help="per channel, in [0, 1]")
    parser.add_argument(
        "--num-classes",
        type=value_of(Positive),
        metavar="N",
        help="keep the classification head (default: drop); 1000 of ImageNet-22k's are chosen by "
        "the published map",
    )
    parser.add_argument(
        "--head-classes",
        type=path,
        metavar="FILE",
        help="keep these rows of the head, one number a line, from 0, in the order of the classes",
    )
    add_mask_options(parser.add_argument_group("with --task (default: as the file says)"))
    return parser


def run(args: argparse.Namespace) -> None:
    """Imports, and says what became of every tensor."""
    check_new(args.out)
    _check_options(args)
    if args.task is not None:
        _import_task(args)
        return
    from ssl_swin.display.waiting import waiting
    from ssl_swin.weights.cards import import_card
    from ssl_swin.weights.formats.head_classes import read_rows
    from ssl_swin.weights.formats.importing import import_weights, save_import

    rows = None if args.head_classes is None else read_rows(args.head_classes)
    with waiting(f"importing {args.file}"):
        imported, report = import_weights(
            args.file,
            format_name=args.format,
            network_name=args.network,
            img_size_px=args.img_size_px,
            window_size=args.window_size,
            pretrained_window_sizes=args.pretrained_window_sizes,
            mean=args.mean,
            std=args.std,
            num_classes=len(rows) if rows and args.num_classes is None else args.num_classes,
            head_classes=rows,
        )
        card = import_card(imported.encoder, args.file.name, report.summary())
        save_import(args.out, imported, card=card)
    for line in (*report.lines(), report.summary()):
        print(line)
    print(f"wrote {args.out}; next: {_next(args.out, imported.encoder.in_chans)}")


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that would be without effect.

    Raises:
        UserError: Naming one.
    """
    of_backbones = ("window_size", "pretrained_window_sizes", "num_classes", "head_classes")
    of_masks = ("reduce_zero_label", "class_of", "class_of_colour")
    for name in of_backbones if args.task else ("classes", *of_masks):
        if getattr(args, name):
            option = f"--{name.replace('_', '-')}"
            what = "is not for a --task" if args.task else "is for --task"
            raise UserError(f"{option} {what}: leave it out")
    for name in of_masks:
        if args.task == "detection" and getattr(args, name):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} is for --task segmentation: leave it out")


def _import_task(args: argparse.Namespace) -> None:
    from ssl_swin.commands.mask_options import class_names, member_check
    from ssl_swin.display.waiting import waiting
    from ssl_swin.quoting import shell_line
    from ssl_swin.weights.cards import import_card
    from ssl_swin.weights.detector import save_detector
    from ssl_swin.weights.formats.detectors import import_detector
    from ssl_swin.weights.formats.segmenters import import_segmenter
    from ssl_swin.weights.segmenter import save_segmenter

    classes = class_names(args)
    masks = member_check(args, None if classes is None else len(classes)).masks
    told: dict[str, Any] = {
        "format_name": args.format,
        "network_name": args.network,
        "img_size_px": args.img_size_px,
        "mean": args.mean,
        "std": args.std,
        "classes": classes,
    }
    with waiting(f"importing {args.file}"):
        if args.task == "detection":
            detector, report = import_detector(args.file, **told)
            card = import_card(detector.model.encoder, args.file.name, report.summary())
            save_detector(args.out, detector, card=card)
        else:
            segmenter, report = import_segmenter(args.file, **told, masks=masks)
            card = import_card(segmenter.model.encoder, args.file.name, report.summary())
            save_segmenter(args.out, segmenter, card=card)
    for line in (*report.lines(), report.summary()):
        print(line)
    predict = shell_line(["ssl-swin", "predict", str(args.out), "IMAGES", "OUT"])
    print(f"wrote {args.out}; next: {predict}")


def _next(out: Path, in_chans: int) -> str:
    from ssl_swin.launch.next_command import job_line
    from ssl_swin.quoting import override
    from ssl_swin.runs.folder import RunFolder

    if in_chans != 3:
        return f"pack labelled images of {in_chans} channels to fine-tune it on, see docs/DATA.md"
    return job_line("finetune", [override("backbone", RunFolder(out).address)])

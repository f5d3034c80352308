"""`ssl-swin predict`: what a trained model says of images, as a table or a folder of files."""

import argparse
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from ssl_swin.commands.box_options import KINDS, BoxSource, add_box_options, box_source
from ssl_swin.commands.inference_options import (
    IMAGES,
    add_answer_options,
    add_crop_option,
    add_inference_options,
    computing_of,
    images_of,
    telling_what_is_kept,
    told_of_bad,
)
from ssl_swin.commands.parsing import path, text
from ssl_swin.commands.places import check_new, check_picture

if TYPE_CHECKING:
    from ssl_swin.inference.predictors.base import Options, Predictor

MODEL = (
    "run of a fine-tuning, a segmentation or a detection, its folder classifier/, segmenter/ or "
    "detector/, whatever backbone= takes that has a head, or a file that `ssl-swin export` wrote "
    "of a classifier (.onnx, .xml of OpenVINO, .pt2 of torch.export)"
)
_OPTIONS = ("top", "scores", "figure", "overlays", "crop_ratio", "batch_size")


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "predict",
        help="write the classes of images or pixels, or objects, to files",
        description="Of a classifier, writes the most probable classes of each image and their "
        "scores, in the order of the images; of labelled images their class too, and how many are "
        "right. Of a segmenter, writes the class of every pixel; where images have masks, their "
        "mIoU too. Of a detector, writes objects as COCO has them; where boxes are known, their "
        "average precision too. Cut short by whatever means, the same command goes on to the same "
        "bytes.",
        epilog="Of a classifier, the ending of OUT says what is written: .csv (name, label, "
        "class1, score1, ...), .jsonl (name, label, predictions), .parquet (name, label, classes, "
        "scores; pip install 'ssl_swin[hf]'). Images that cannot be read are listed in "
        "OUT.bad.csv. Of a segmenter, OUT is a folder: masks/, PNGs whose values are classes, with "
        "a palette; images.csv, the pixels of each class; classes.csv; bad.csv; overlays/. Of a "
        "detector, OUT is a folder: detections.json, images.csv, classes.csv, bad.csv, overlays/.",
        usage="%(prog)s [options] model images out",
    )
    parser.add_argument("model", type=text, help=MODEL)
    parser.add_argument("images", type=text, help=IMAGES)
    parser.add_argument("out", type=path, help="file or folder to write")
    add_answer_options(parser)
    parser.add_argument(
        "--figure", type=path, metavar="FILE.png", help="draw 24 of the images with their classes"
    )
    parser.add_argument(
        "--overlays",
        action="store_true",
        help="of a segmenter or detector: write each image with the colours of its classes, or "
        "its objects, over it",
    )
    add_crop_option(parser, "the classifier's")
    add_inference_options(parser)
    add_box_options(
        parser.add_argument_group("of a detector, where the truth is known"), holds_out=False
    )
    parser.set_defaults(**dict.fromkeys(_OPTIONS))  # by the model, which has some of them
    return parser


def run(args: argparse.Namespace) -> None:
    """Computes, writes, and says what came of it."""
    check_new(args.out)
    if args.figure is not None:
        check_picture("--figure", args.figure)
    from ssl_swin.inference.parts import Parts
    from ssl_swin.inference.run import compute_file, facts_of

    predictor = predictor_of(args.model)
    options = _options(args, predictor)
    predictor.check_out(args.out)
    if args.device == "auto" and predictor.only_device is not None:
        args.device = predictor.only_device
    boxes = _boxes(args, predictor)
    dataset = images_of(args, with_members=predictor.looks_at_members, boxes=boxes).dataset
    computing = computing_of(args, dataset, predictor)
    parts = Parts(
        args.out,
        num_images=len(dataset),
        batch_size=computing.batch_size,
        part_images=predictor.part_images,
        is_folder=predictor.writes_folder,
    )
    facts = facts_of(predictor.model, dataset, computing, **predictor.facts(options))
    with telling_what_is_kept():
        number, num_bad = compute_file(
            parts,
            lambda first: predictor.rows(dataset, computing, options, parts, first),
            facts,
            lambda parts: predictor.write(parts, dataset, computing.view.pixels, options),
            max_bad=computing.max_bad,
            name="predicting",
            tell=print,
        )
    print(f"{args.out}: {number:,} images{told_of_bad(num_bad, predictor.list_of_bad(args.out))}")
    if args.figure is not None:
        print(f"drawn: {args.figure}")
    for line in predictor.told():
        print(line)


def predictor_of(reference: str) -> "Predictor":
    """Load what predicts, whatever it is named by.

    Args:
        reference: See `load_predictor`.

    Raises:
        UserError: If there is none.
    """
    from ssl_swin.launch.predictors import load_predictor

    predictor = load_predictor(reference)
    for note in predictor.notes:
        print(f"note: {note}")
    return predictor


def _boxes(args: argparse.Namespace, predictor: "Predictor") -> "BoxSource | None":
    """Return whose boxes the options ask for.

    Raises:
        UserError: If the model has no use for boxes, or options contradict each other.
    """
    from ssl_swin.errors import UserError

    given = [name for name in (*KINDS, "first_pixel") if getattr(args, name) is not None]
    if given and not predictor.looks_at_boxes:
        option = given[0].replace("_", "-")
        raise UserError(f"--{option} is not for {predictor.title}: leave it out")
    source = box_source(args, None)
    if source is None:
        return None
    return replace(source, reading=replace(source.reading, exif_rotation=args.exif_rotation))


def _options(args: argparse.Namespace, predictor: "Predictor") -> "Options":
    """Return what is wanted, and fill in what the model says where nothing was given.

    Raises:
        UserError: If an option is not for the model.
    """
    from ssl_swin.inference.predictors.base import Options, check_options

    values = {name: getattr(args, name) for name in _OPTIONS}
    given = {name: value for name, value in values.items() if value is not None}
    check_options(predictor, given, lambda name: f"--{name.replace('_', '-')}")
    args.batch_size = args.batch_size or predictor.batch_size
    wanted = {each.name for each in fields(Options)}
    return Options(**{name: value for name, value in given.items() if name in wanted})

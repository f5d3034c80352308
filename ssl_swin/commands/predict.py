"""`ssl-swin predict`: what a fine-tuned model says of images, as a table."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

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
from ssl_swin.errors import UserError

if TYPE_CHECKING:
    from ssl_swin.inference.predictors.base import Predictor

CLASSIFIER = (
    "run of a fine-tuning, its folder classifier/, whatever backbone= takes that has a head, or a "
    "file that `ssl-swin export` wrote of one (.onnx, .xml of OpenVINO, .pt2 of torch.export)"
)


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "predict",
        help="write the classes of images to a file",
        description="Writes the most probable classes of each image and their scores, in the order "
        "of the images; of labelled images their class too, and how many are right. Cut short by "
        "whatever means, the same command goes on to the same bytes.",
        epilog="The ending of OUT says what is written: .csv (name, label, class1, score1, ...), "
        ".jsonl (name, label, predictions), .parquet (name, label, classes, scores; pip install "
        "'ssl_swin[hf]'). Images that cannot be read are listed in OUT.bad.csv.",
        usage="%(prog)s [options] classifier images out",
    )
    parser.add_argument("classifier", type=text, help=CLASSIFIER)
    parser.add_argument("images", type=text, help=IMAGES)
    parser.add_argument("out", type=path, help="file to write")
    add_answer_options(parser)
    parser.add_argument(
        "--figure", type=path, metavar="FILE.png", help="draw 24 of the images with their classes"
    )
    add_crop_option(parser, "the classifier's")
    add_inference_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Computes, writes, and says what came of it."""
    check_new(args.out)
    if args.figure is not None:
        check_picture("--figure", args.figure)
    from ssl_swin.inference.predictors.base import Options
    from ssl_swin.inference.run import compute_file, facts_of
    from ssl_swin.inference.vector_files import bad_beside

    predictor = predictor_of(args.classifier)
    if args.device == "auto" and predictor.only_device is not None:
        args.device = predictor.only_device
    _check_ending(args.out, predictor)
    dataset = images_of(args).dataset
    computing = computing_of(args, dataset, predictor)
    options = Options(args.top, args.scores, args.figure)
    facts = facts_of(predictor.model, dataset, computing, **predictor.facts(options))
    with telling_what_is_kept():
        number, num_bad = compute_file(
            args.out,
            dataset,
            predictor.compute(options, computing.device, computing.precision),
            computing,
            facts,
            lambda parts: predictor.write(parts, dataset, computing.view.pixels, options),
            name="predicting",
            tell=print,
        )
    print(f"{args.out}: {number:,} images{told_of_bad(num_bad, bad_beside(args.out))}")
    if args.figure is not None:
        print(f"drawn: {args.figure}")
    for line in predictor.told():
        print(line)


def predictor_of(reference: str) -> "Predictor":
    """Load a classifier, or what else predicts, whatever it is named by.

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


def _check_ending(out: Path, predictor: "Predictor") -> None:
    if out.suffix.lower() not in predictor.endings:
        raise UserError(
            f"{out}: the ending says how predictions are written, and it must be one of "
            f"{', '.join(predictor.endings)}"
        )
    if out.suffix.lower() == ".parquet":
        from ssl_swin.data.sources.table_rows import pyarrow

        pyarrow()

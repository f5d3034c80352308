"""`ssl-swin calibrate`: makes the confidence of a classifier mean what it says."""

import argparse
from pathlib import Path

from ssl_swin.commands.inference_options import (
    IMAGES,
    add_crop_option,
    add_inference_options,
    computing_of,
    images_of,
)
from ssl_swin.commands.parsing import path, text
from ssl_swin.commands.predict import predictor_of
from ssl_swin.errors import UserError


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "calibrate",
        help="fit the confidence of a classifier on labelled images",
        description="Fits one temperature to labelled images that the classifier was not trained "
        "on, as a validation split, and keeps it in calibration.json beside the weights, where "
        "`ssl-swin predict` finds it. The predicted classes stay what they are.",
        usage="%(prog)s [options] classifier images",
    )
    parser.add_argument("classifier", type=path, help="run of a fine-tuning, or its classifier/")
    parser.add_argument("images", type=text, help=f"labelled: {IMAGES}")
    add_crop_option(parser, "the classifier's")
    add_inference_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Fits, writes, and says what it changed."""
    import torch

    from ssl_swin.inference.calibration import fit_calibration, save_calibration
    from ssl_swin.inference.predictors.classification import ClassPredictor
    from ssl_swin.inference.run import values_in_memory
    from ssl_swin.probing.feature_store import weights_fingerprint

    folder = _own_folder(args.classifier)
    predictor = predictor_of(str(folder))
    if not isinstance(predictor, ClassPredictor):
        raise UserError(f"{folder} is no classifier: there is no confidence to calibrate")
    dataset = images_of(args).dataset
    if not dataset.classes:
        raise UserError(f"{args.images} has no labels, which a calibration is fitted to")
    computing = computing_of(args, dataset, predictor)
    logits_of = predictor.logits_function(computing.device, computing.precision)
    rows = values_in_memory(
        dataset, lambda pixels: {"logits": logits_of(pixels)}, computing, "calibrating"
    )
    logits = torch.cat([each.values["logits"] for each in rows])
    labels = torch.cat([predictor.own_labels(each.labels, dataset.classes) for each in rows])
    known = labels >= 0
    fitted = fit_calibration(
        logits[known], labels[known], weights=weights_fingerprint(predictor.model)
    )
    place = save_calibration(folder, fitted)
    print(fitted)
    print(f"wrote {place}")


def _own_folder(given: Path) -> Path:
    """Return the folder of the classifier, which the calibration is written to.

    Raises:
        UserError: If it is not a folder with a network in our layout.
    """
    from ssl_swin.weights.backbone import CONFIG, WEIGHTS

    for folder in (given, given / "classifier"):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    raise UserError(
        f"{given} is no classifier: give the run of a fine-tuning, or its folder classifier/"
    )

"""Classes of images as an array, from Python."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_swin.arguments import Name, PathLike, Portion, Positive, Workers, checked
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sources.layout import Reading
from ssl_swin.errors import UserError
from ssl_swin.inference.images import open_images
from ssl_swin.inference.parts import told_of
from ssl_swin.inference.predictors.class_answers import ClassAnswers
from ssl_swin.inference.vectors import Precision, View, rows_of
from ssl_swin.launch.build import usable_device
from ssl_swin.launch.data_settings import remote_cache
from ssl_swin.launch.predictors import load_predictor


class Predictions(NamedTuple):
    """Scores of every class of images."""

    names: list[str]  # N, of the images in their folder, archive or shards
    classes: tuple[str, ...]  # K, in the order of the scores
    scores: Tensor  # float32 (N, K), on the CPU


@checked
def predict(
    classifier: PathLike,
    images: PathLike,
    *,
    scores: Literal["probability", "logit"] = "probability",
    crop_ratio: Portion | None = None,
    batch_size: Positive = 64,
    num_workers: Workers = 0,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    pixels: PixelFormat | None = None,
    split: Name | None = None,
) -> Predictions:
    """Compute what a classifier says of images, labelled or not, in the view of evaluation.

    `ssl-swin predict` writes the same numbers to a file, and goes on after a kill.

    Args:
        classifier: Run of a fine-tuning, its folder classifier/, whatever `backbone=` takes that
            has a head, or a file that `ssl-swin export` wrote of one.
        images: Whatever `ssl-swin pack` takes: a folder of images, an archive, a table, a list,
            shards; or a URL of shards.
        scores: "probability", which is calibrated where `ssl-swin calibrate` was run, or "logit".
        crop_ratio: Side of the centre crop over the shorter side of an image, in (0, 1]; None takes
            the classifier's.
        batch_size: Images that go through the network at a time.
        num_workers: Loading processes; 0 loads in this one.
        device: Device on which the network computes; an exported file computes on the CPU.
        precision: Of matrix products: "float32", "bfloat16" or "float16".
        pixels: What decoded images are; None takes the network's number of channels, of uint8.
        split: The only split to take; None takes all, and names each image SPLIT/NAME if there are
            several.

    Returns:
        Names, classes and scores, split by split and in the order of the data.

    Raises:
        UserError: If there are no images, one cannot be read, the network is no classifier, or an
            argument is not possible.
    """
    predictor = load_predictor(classifier)
    if not isinstance(predictor, ClassAnswers):
        raise UserError(f"{classifier} says nothing of classes: `ssl-swin predict` writes its kind")
    logits_of = predictor.logits_function(usable_device(str(device)), precision)
    found = open_images(images, reading=Reading(labelled=False), split=split, cache=remote_cache())
    names, logits = [], []
    for rows in rows_of(
        found.dataset,
        lambda batch: {"logits": logits_of(batch)},
        View(
            pixels or PixelFormat(predictor.encoder.in_chans, "uint8"),
            crop_ratio or predictor.crop_ratio,
        ),
        size_px=predictor.encoder.img_size_px,
        batch_size=batch_size,
        num_workers=num_workers,
    ):
        if rows.bad_samples:
            raise UserError(told_of(rows.bad_samples[0]))
        names += rows.names
        logits.append(rows.values["logits"])
    answers = torch.cat(logits)
    if scores == "probability":
        answers = (answers / predictor.temperature).softmax(dim=1)
    return Predictions(names, predictor.classes, answers)

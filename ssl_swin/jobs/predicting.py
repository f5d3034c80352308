"""Classes of images or of their pixels, or objects in them, as tensors, from Python."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ssl_swin.arguments import Name, PathLike, Portion, Positive, Workers, checked
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.loading.protocol import BadSample
from ssl_swin.data.sources.layout import Reading
from ssl_swin.errors import UserError
from ssl_swin.inference.images import open_images
from ssl_swin.inference.parts import told_of
from ssl_swin.inference.predictors.base import check_options
from ssl_swin.inference.predictors.class_answers import ClassAnswers
from ssl_swin.inference.predictors.detection import DetectPredictor
from ssl_swin.inference.predictors.segmentation import SegmentPredictor
from ssl_swin.inference.predictors.whole_images import Answer, WholeImagePredictor
from ssl_swin.inference.run import Computing, batches
from ssl_swin.inference.vectors import Precision, View
from ssl_swin.launch.build import usable_device
from ssl_swin.launch.data_settings import remote_cache
from ssl_swin.launch.predictors import load_predictor
from ssl_swin.tasks.detections import Detections


class Predictions(NamedTuple):
    """Scores of every class of images."""

    names: list[str]  # N, of the images in their folder, archive or shards
    classes: tuple[str, ...]  # K, in the order of the scores
    scores: Tensor  # float32 (N, K), on the CPU


class PixelPredictions(NamedTuple):
    """The class of every pixel of images."""

    names: list[str]  # N, of the images in their folder, archive or shards
    classes: tuple[str, ...]  # K
    masks: list[Tensor]  # N of int64 (H, W), in [0, K), of each image's own size, on the CPU


class ObjectPredictions(NamedTuple):
    """The objects in images."""

    names: list[str]  # N, of the images in their folder, archive or shards
    classes: tuple[str, ...]  # K
    objects: list[Detections]  # N: boxes, scores, labels and masks of each, on the CPU


@checked
def predict(
    model: PathLike,
    images: PathLike,
    *,
    scores: Literal["probability", "logit"] | None = None,
    crop_ratio: Portion | None = None,
    batch_size: Positive | None = None,
    num_workers: Workers = 0,
    device: torch.device | str = "cpu",
    precision: Precision = "float32",
    pixels: PixelFormat | None = None,
    split: Name | None = None,
) -> Predictions | PixelPredictions | ObjectPredictions:
    """Compute what a classifier, a segmenter or a detector says of images, labelled or not.

    `ssl-swin predict` writes the same numbers to files, and goes on after a kill.

    Args:
        model: Run of a fine-tuning, a segmentation or a detection, its folder classifier/,
            segmenter/ or detector/, whatever `backbone=` takes that has a head, or a file that
            `ssl-swin export` wrote of a classifier.
        images: Whatever `ssl-swin pack` takes: a folder of images, an archive, a table, a list,
            shards; or a URL of shards.
        scores: Of a classifier: "probability", which None is, too, and which is calibrated where
            `ssl-swin calibrate` was run; or "logit".
        crop_ratio: Of a classifier: side of the centre crop over the shorter side of an image, in
            (0, 1]; None takes the classifier's.
        batch_size: Images that go through a classifier at a time, None is 64; the others see each
            alone.
        num_workers: Loading processes; 0 loads in this one.
        device: Device on which the network computes; an exported file computes on the CPU.
        precision: Of matrix products: "float32", "bfloat16" or "float16".
        pixels: What decoded images are; None takes the network's number of channels, of uint8.
        split: The only split to take; None takes all, and names each image SPLIT/NAME if there are
            several.

    Returns:
        Names, classes and scores, of a segmenter masks, or of a detector objects, split by split
        and in the order of the data.

    Raises:
        UserError: If there are no images, one cannot be read, the network is none of these, or an
            argument is not possible.
    """
    predictor = load_predictor(model)
    given = {"scores": scores, "crop_ratio": crop_ratio, "batch_size": batch_size}
    check_options(predictor, [name for name, value in given.items() if value is not None])
    found = open_images(images, reading=Reading(labelled=False), split=split, cache=remote_cache())
    computing = Computing(
        View(
            pixels or PixelFormat(predictor.encoder.in_chans, "uint8"),
            crop_ratio or predictor.crop_ratio,
        ),
        predictor.encoder.img_size_px,
        batch_size or predictor.batch_size,
        num_workers,
        0,
        usable_device(str(device)),
        precision,
    )
    if isinstance(predictor, SegmentPredictor):
        names, masks = _answers(predictor, found.dataset, computing)
        return PixelPredictions(names, predictor.classes, [each.cpu() for each in masks])
    if isinstance(predictor, DetectPredictor):
        names, objects = _answers(predictor, found.dataset, computing)
        return ObjectPredictions(names, predictor.classes, [each.to("cpu") for each in objects])
    if not isinstance(predictor, ClassAnswers):
        raise UserError(f"{model} is {predictor.title}, for which there is `ssl-swin predict`")
    return _scores(predictor, found.dataset, computing, scores or "probability")


def _scores(
    predictor: ClassAnswers,
    dataset: ImageDataset,
    computing: Computing,
    scores: Literal["probability", "logit"],
) -> Predictions:
    logits_of = predictor.logits_function(computing.device, computing.precision)
    names, logits = [], []
    for rows in batches(dataset, lambda batch: {"logits": logits_of(batch)}, computing):
        _check_read(rows.bad_samples)
        names += rows.names
        logits.append(rows.values["logits"])
    answers = torch.cat(logits)
    if scores == "probability":
        answers = (answers / predictor.temperature).softmax(dim=1)
    return Predictions(names, predictor.classes, answers)


def _answers(
    predictor: WholeImagePredictor[Answer], dataset: ImageDataset, computing: Computing
) -> tuple[list[str], list[Answer]]:
    names, answers = [], []
    for looked in predictor.looked(dataset, computing):
        _check_read(looked.bad_samples)
        names += [whole.name for whole, _ in looked.answers]
        answers += [answer for _, answer in looked.answers]
    return names, answers


def _check_read(bad_samples: Sequence[BadSample]) -> None:
    if bad_samples:
        raise UserError(told_of(bad_samples[0]))

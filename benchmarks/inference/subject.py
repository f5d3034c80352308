"""What all variants are given: one network, pixels, and labelled images if there are any."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.step.workload import DISTURBANCE, load_settings, model_names
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.deploy.network import Network, example_pixels, load_network
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.errors import UserError
from ssl_swin.inference.images import open_images
from ssl_swin.inference.predictors.classification import ClassPredictor
from ssl_swin.inference.vectors import View, rows_of
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.launch.data_settings import remote_cache
from ssl_swin.tasks.classification import Classifier
from ssl_swin.weights.backbone import save_classifier
from ssl_swin.weights.sources import default_cache

NUM_CLASSES = 1000  # of a network with random weights


@dataclass(frozen=True)
class Labelled:
    """Images of which the classes are known.

    Attributes:
        pixels: uint8 (N, C, H, W).
        labels: int64 (N,), of the network's classes.
    """

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Subject:
    """A network to be run in several ways.

    Attributes:
        name: For a reader.
        folder: Of its weights.
        network: Raw pixels in, scores out; in float32.
        labelled: Images to judge answers by; None without any.
    """

    name: str
    folder: Path
    network: Network
    labelled: Labelled | None = None

    def pixels(self, batch_size: int) -> Tensor:
        """Return pixels (B, C, H, W): the first images, else noise.

        Raises:
            UserError: If there are fewer images.
        """
        if self.labelled is None:
            return example_pixels(self.network, batch_size, "uint8")
        if len(self.labelled.pixels) < batch_size:
            raise UserError(f"there are {len(self.labelled.pixels)} images, fewer than a batch")
        return self.labelled.pixels[:batch_size]


def drawn_subject(
    model: str, folder: Path, *, img_size_px: int | None = None, seed: int = 0
) -> Subject:
    """Return a network of `conf/model` with random weights and 1,000 classes.

    Args:
        model: Its name.
        folder: To save it in.
        img_size_px: Side of its images, with which the window grows; None takes its own.
        seed: Of the weights.

    Raises:
        UserError: If there is no such model, or it does not take the size.
    """
    if model not in model_names():
        raise UserError(f"unknown model {model!r}; known: {', '.join(model_names())}")
    from hydra.utils import instantiate

    torch.manual_seed(seed)
    encoder = instantiate(load_settings(f"model={model}").model)
    if img_size_px is not None:
        encoder = resize_encoder(encoder, img_size_px=img_size_px)
    network = Classifier(encoder, num_classes=NUM_CLASSES)
    with torch.no_grad():  # so that no weight is at a value that hides a mistake
        for parameter in network.parameters():
            parameter.add_(DISTURBANCE * torch.randn_like(parameter))
    half = [0.5] * network.encoder.in_chans
    classes = [*map(str, range(NUM_CLASSES))]
    save_classifier(folder, network, classes=classes, mean=half, std=half, card="")
    return Subject(f"{model}, random weights", folder, load_network(folder, "scores"))


def trained_subject(classifier: str, images: str | None, *, num_images: int) -> Subject:
    """Return a fine-tuned network, and labelled images to judge it by.

    Args:
        classifier: See `local_backbone`.
        images: Whatever `ssl-swin predict` takes; None judges nothing.
        num_images: Most images, spread evenly over those that there are.

    Raises:
        UserError: If there is no classifier, or no image has a class that it knows.
    """
    folder = local_backbone(classifier, default_cache())
    network = load_network(folder, "scores")
    labelled = None if images is None else _labelled(folder, images, num_images)
    return Subject(classifier, folder, network, labelled)


def _labelled(folder: Path, images: str, num_images: int) -> Labelled:
    predictor = ClassPredictor.load(folder)
    dataset = open_images(images, cache=remote_cache()).dataset
    view = View(PixelFormat(predictor.encoder.in_chans, "uint8"), predictor.crop_ratio)
    size_px = predictor.encoder.img_size_px
    rows = [
        each
        for each in rows_of(dataset, _keep, view, size_px=size_px, batch_size=64, num_workers=0)
        if each.names
    ]
    labels = torch.cat([predictor.own_labels(each.labels, dataset.classes) for each in rows])
    known = (labels >= 0).nonzero()[:, 0]
    if not len(known):
        raise UserError(f"no image of {images} has a class that {folder} knows")
    places = torch.linspace(0, len(known) - 1, min(num_images, len(known))).round().long()
    chosen = known[places]
    pixels = torch.cat([each.values["pixels"] for each in rows])
    return Labelled(pixels[chosen], labels[chosen])


def _keep(pixels: Tensor) -> dict[str, Any]:
    return {"pixels": pixels}


def top1(scores: Sequence[Tensor] | Tensor, labels: Tensor) -> float:
    """Return the share of images whose highest score is of their class, in [0, 1]."""
    joined = scores if isinstance(scores, Tensor) else torch.cat([*scores])
    return (joined.argmax(dim=1) == labels).double().mean().item()

"""The hand-off of a detection run: the folder `detector/`, and loading it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_swin.arguments import PathLike, checked
from ssl_swin.pixels import normalize
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.tasks.detection import Detection
from ssl_swin.tasks.detections import Detections
from ssl_swin.tasks.detector import Detector, detector_export, detector_state
from ssl_swin.weights.backbone import WEIGHTS, save_export
from ssl_swin.weights.task_folders import (
    check_image,
    describing,
    find_folder,
    is_of_task,
    load_exactly,
    read_hand_off,
)

FOLDER = "detector"  # in the folder of a run


@dataclass(frozen=True)
class LoadedDetector:
    """A detector that was handed off.

    Attributes:
        model: Encoder and R-CNN, in eval mode.
        classes: Names of the classes, by label.
        mean: Normalisation, per channel.
        std: Normalisation, per channel.
        inference: How it was evaluated to look at images.
        head: Settings of the model's R-CNN.
    """

    model: Detector
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inference: DetectInference
    head: Mapping[str, Any]

    def detect(self, pixels: Tensor) -> Detections:
        """Return the objects in an image, in its own px, the surest first.

        Args:
            pixels: Raw pixels (C, H, W) of any size, uint8, uint16 or float32, on the device of the
                model.
        """
        check_image(pixels, len(self.mean), FOLDER)
        return self.inference.detections(self.model, normalize(pixels, self.mean, self.std))


@checked
def load_detector(path: PathLike) -> LoadedDetector:
    """Load what `detect.py` has handed off.

    Args:
        path: A folder `detector`, or a run's folder that holds one.

    Raises:
        UserError: If there is none, or its files do not belong together.
    """
    folder = find_folder(Path(path), FOLDER)
    with describing(folder, FOLDER):
        config, encoder, classes, mean, std = read_hand_off(folder)
        inference = DetectInference(**config["inference"])
        model = Detector(encoder, num_classes=len(classes), **config["head"])
    load_exactly(detector_state(model.encoder, model.rcnn), folder / WEIGHTS)
    return LoadedDetector(model.eval(), classes, mean, std, inference, config["head"])


def save_detector(folder: Path, detector: LoadedDetector, *, card: str) -> None:
    """Write a detector as `detect.py` hands it off.

    Args:
        folder: Created if need be.
        detector: The detector.
        card: Text of the model card, Markdown.
    """
    model = detector.model
    export = detector_export(
        model.encoder,
        model.rcnn,
        classes=detector.classes,
        head=detector.head,
        inference=detector.inference,
    )
    mean, std = detector.mean, detector.std
    save_export(folder, model.encoder, export, mean=mean, std=std, card=card, crop_ratio=1.0)


def is_detector(folder: Path) -> bool:
    """Return whether a folder holds what `detect.py` hands off."""
    return is_of_task(folder, Detection.title)

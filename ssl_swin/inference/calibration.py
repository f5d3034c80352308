"""Confidence that means what it says: one temperature for all logits, fitted on labelled images."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically
from ssl_swin.plurals import counted

CALIBRATION = "calibration.json"
NUM_BINS = 15
_RANGE = math.log(0.02), math.log(50)  # of temperatures
_NUM_STEPS = 60  # of a search that leaves 0.618 of its range in each


@dataclass(frozen=True)
class Calibration:
    """A temperature, and what it changed on the images that it was fitted on.

    Attributes:
        temperature: Logits are divided by it.
        ece_before: Expected calibration error of the plain softmax, in [0, 1].
        ece_after: The same with the temperature.
        num_images: How many it was fitted on.
        weights: Fingerprint of the network's weights.
    """

    temperature: float
    ece_before: float
    ece_after: float
    num_images: int
    weights: str

    def __str__(self) -> str:
        return (
            f"temperature {self.temperature:.3f}, fitted on {counted(self.num_images, 'image')}: "
            f"expected calibration error {100 * self.ece_before:.1f} % before, "
            f"{100 * self.ece_after:.1f} % after"
        )


def fit_calibration(logits: Tensor, labels: Tensor, *, weights: str) -> Calibration:
    """Fit the temperature that makes the labels likeliest.

    Reference: On Calibration of Modern Neural Networks (arXiv:1706.04599), section 4.2.

    Args:
        logits: float (N, classes).
        labels: int64 (N,), all at least 0.
        weights: Fingerprint of the network's weights.

    Raises:
        UserError: If there are no images.
    """
    if not len(labels):
        raise UserError("no image has a label that the classifier knows, so nothing to fit to")
    logits = logits.double()
    temperature = _best_temperature(logits, labels)
    before, after = (
        calibration_error(*_judged(logits / divisor, labels)) for divisor in (1.0, temperature)
    )
    return Calibration(temperature, before, after, len(labels), weights)


def calibration_error(confidences: Tensor, is_right: Tensor) -> float:
    """Return the expected calibration error: how far confidence and accuracy lie apart.

    Args:
        confidences: float (N,) of the predicted classes, in (0, 1].
        is_right: bool (N,).
    """
    bins = (confidences * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
    gaps = torch.zeros(NUM_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, confidences.double() - is_right.double())
    return float(gaps.abs().sum()) / len(confidences)


def save_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write a calibration beside the weights; return its file."""
    path = folder / CALIBRATION
    write_atomically(path, json.dumps(asdict(calibration), indent=2) + "\n")
    return path


def load_calibration(folder: Path) -> Calibration | None:
    """Read the calibration beside the weights; None if there is none.

    Raises:
        UserError: If it is damaged.
    """
    path = folder / CALIBRATION
    try:
        found = Calibration(**json.loads(path.read_text()))
        if not (isinstance(found.temperature, float) and 0 < found.temperature < math.inf):
            raise ValueError(f"the temperature is {found.temperature!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}. Delete it, or calibrate again") from error
    return found


def _best_temperature(logits: Tensor, labels: Tensor) -> float:
    """Search by golden section: the loss is convex in the inverse, so it has one valley."""

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    low, high = _RANGE
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    of_left, of_right = loss(left), loss(right)
    for _ in range(_NUM_STEPS):
        if of_left <= of_right:
            high, right, of_right = right, left, of_left
            left = high - golden * (high - low)
            of_left = loss(left)
        else:
            low, left, of_left = left, right, of_right
            right = low + golden * (high - low)
            of_right = loss(right)
    return math.exp((low + high) / 2)


def _judged(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    confidences, predicted = logits.softmax(dim=1).max(dim=1)
    return confidences, predicted == labels

"""How well each pixel's class is told, as Swin's segmentation code counts it.

Reference: `mmseg/core/evaluation/metrics.py`. Pixels of all images count together, so that a mean
over classes is of the whole split and not of images. A class that is neither in the labels nor in
the predictions is left out of the mean; one that is only predicted has an IoU of 0.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torchmetrics import Metric

from ssl_swin.data.mask_classes import IGNORED


class PixelCounts(Metric, ABC):
    """Counts the pixels of every class.

    Attributes:
        true: Pixels that are of a class, int64 (classes,).
        predicted: Pixels that are told to be of it.
        both: Pixels that are rightly told to be of it.
    """

    full_state_update = False
    true: Tensor
    predicted: Tensor
    both: Tensor

    def __init__(self, num_classes: int) -> None:
        """Start counting.

        Args:
            num_classes: Number of classes.
        """
        super().__init__()
        self.num_classes = num_classes
        for name in ("true", "predicted", "both"):
            zeros = torch.zeros(num_classes, dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, predicted: Tensor, classes: Tensor) -> None:
        """Count pixels.

        Args:
            predicted: Class told of each pixel, integers of any shape.
            classes: Class of each, of the same shape; `IGNORED` is left out.
        """
        is_labelled = classes != IGNORED
        predicted, classes = predicted[is_labelled].long(), classes[is_labelled].long()
        self.true += self._histogram(classes)
        self.predicted += self._histogram(predicted)
        self.both += self._histogram(classes[predicted == classes])

    @abstractmethod
    def compute(self) -> Tensor:
        """Return the metric, from 0 to 1; NaN where no class has been seen."""

    def _histogram(self, classes: Tensor) -> Tensor:
        return torch.bincount(classes, minlength=self.num_classes)


class MeanIoU(PixelCounts):
    """Mean over classes of intersection over union."""

    def of_classes(self) -> Tensor:
        """Return the IoU of each class, float64 (classes,), NaN for one that is nowhere."""
        return self.both.double() / (self.true + self.predicted - self.both).double()

    def compute(self) -> Tensor:
        """Return the mean of those that are somewhere."""
        return self.of_classes().nanmean().float()


class MeanClassAccuracy(PixelCounts):
    """Mean over classes of the share of their pixels that are rightly told."""

    def compute(self) -> Tensor:
        """Return the mean of those that the labels have."""
        return (self.both.double() / self.true.double()).nanmean().float()


class PixelAccuracy(PixelCounts):
    """Share of all pixels that are rightly told."""

    def compute(self) -> Tensor:
        """Return the share."""
        return (self.both.sum().double() / self.true.sum().double()).float()

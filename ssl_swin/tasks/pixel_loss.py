"""The loss of a class per pixel."""

from typing import Literal

from torch import Tensor
from torch.nn import functional

from ssl_swin.data.mask_classes import IGNORED
from ssl_swin.tasks.upernet import upsampled

Mean = Literal["all", "labelled"]


def pixel_loss(scores: Tensor, classes: Tensor, *, mean: Mean = "all") -> Tensor:
    """Return the cross entropy of scores, upsampled to the size of the labels.

    Args:
        scores: (B, classes, h, w).
        classes: Class of each pixel, integers (B, H, W); `IGNORED` counts as a loss of 0.
        mean: Over "all" pixels, as in the original, or over "labelled" ones, as torch has it; then
            a batch without labels has the loss 0.

    Returns:
        A scalar with a gradient.
    """
    labels = classes.long()
    losses = functional.cross_entropy(
        upsampled(scores, labels).float(), labels, ignore_index=IGNORED, reduction="none"
    )
    if mean == "all":
        return losses.mean()
    return losses.sum() / (labels != IGNORED).sum().clamp(min=1)

"""Classes of pixels as colours over the image that they are of."""

import numpy as np
from numpy.typing import NDArray

from ssl_swin.reporting.drawing import class_colours

STRENGTH = 0.5  # of a colour over the image


def class_overlay(
    picture: NDArray[np.uint8], classes: NDArray[np.integer], num_classes: int
) -> NDArray[np.uint8]:
    """Return a picture with the colour of each pixel's class over it.

    Args:
        picture: (H, W, 3).
        classes: Class of each pixel, (H, W), all in [0, num_classes).
        num_classes: Number of classes, which share the colours.

    Returns:
        uint8 (H, W, 3).
    """
    colours = np.array(class_colours(num_classes), dtype=np.float32)[classes]
    mixed = picture + STRENGTH * (colours - picture)
    result: NDArray[np.uint8] = mixed.round().astype(np.uint8)
    return result

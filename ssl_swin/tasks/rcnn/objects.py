"""What is in an image, and what is detected in it, in px of what the network sees."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

Sizes = Sequence[tuple[int, int]]  # height and width of each image, in px


class Objects(NamedTuple):
    """What is in an image."""

    boxes: Tensor  # float32 (N, 4)
    labels: Tensor  # int64 (N,), from 0
    masks: Tensor | None  # uint8 (N, H, W)


class Found(NamedTuple):
    """What is detected in an image, the surest first."""

    boxes: Tensor  # float32 (M, 4)
    scores: Tensor  # float32 (M,)
    labels: Tensor  # int64 (M,)
    masks: Tensor | None  # probabilities inside the boxes, float32 (M, 28, 28)

"""What a figure shows, as tensors: columns of images, one row per example.

Objectives and tasks say what to draw in these words; `ssl_swin.reporting` draws it.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ImageColumn:
    """Images."""

    title: str
    images: Tensor  # normalised float (B, C, H, W)
    masked: Tensor | None = None  # bool (B, rows, columns), True = drawn grey; expanded to pixels


@dataclass(frozen=True)
class DifferenceColumn:
    """How far two images are apart, as a colour map: the mean over channels of |a - b|."""

    title: str
    images: Tensor  # normalised float (B, C, H, W)
    reference: Tensor  # of the same shape


@dataclass(frozen=True)
class LabelColumn:
    """Classes per pixel, one colour each."""

    title: str
    labels: Tensor  # int (B, H, W); negative values are drawn grey


Column = ImageColumn | DifferenceColumn | LabelColumn
Figure = tuple[Column, ...]

"""Labelled examples and batches of them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

UNLABELLED = -1


class LabeledSample(NamedTuple):
    """One image for classification."""

    pixels: Tensor  # uint8, uint16 or float32 (C, H, W)
    label: int
    name: str  # of the image in its set


class LabeledBatch(NamedTuple):
    """A batch for classification."""

    pixels: Tensor  # uint8, uint16 or float32 (B, C, H, W)
    labels: Tensor  # int64 (B,)
    names: list[str]  # B


def collate_labeled(samples: Sequence[LabeledSample]) -> LabeledBatch:
    """Stack examples."""
    return LabeledBatch(
        torch.stack([sample.pixels for sample in samples]),
        torch.tensor([sample.label for sample in samples]),
        [sample.name for sample in samples],
    )

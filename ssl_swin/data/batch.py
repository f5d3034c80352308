"""What a loader hands to a training step."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

UNLABELLED = -1


class MaskedSample(NamedTuple):
    """One image for masked image modelling."""

    pixels: Tensor  # uint8, uint16 or float32 (C, H, W)
    mask: Tensor  # bool (rows, columns), True = masked
    label: int  # class, or UNLABELLED
    name: str  # of the image in its set


class LabeledSample(NamedTuple):
    """One image for classification."""

    pixels: Tensor  # uint8, uint16 or float32 (C, H, W)
    label: int
    name: str  # of the image in its set


class PretrainBatch(NamedTuple):
    """A batch for masked image modelling."""

    pixels: Tensor  # uint8, uint16 or float32 (B, C, H, W)
    mask: Tensor  # bool (B, rows, columns), True = masked
    labels: Tensor  # int64 (B,), UNLABELLED where there is none
    names: list[str]  # B
    packing: Any = None  # of the mask, for an encoder that sees visible cells alone


class LabeledBatch(NamedTuple):
    """A batch for classification."""

    pixels: Tensor  # uint8, uint16 or float32 (B, C, H, W)
    labels: Tensor  # int64 (B,)
    names: list[str]  # B


def collate_masked(
    samples: Sequence[MaskedSample],
    shared_mask: bool = False,
    pack: Callable[[Tensor], Any] | None = None,
) -> PretrainBatch:
    """Makes a batch of samples.

    Args:
        samples: What to stack.
        shared_mask: The first one's mask serves the whole batch.
        pack: Plans the masks (B, rows, columns) for the encoder, here where no step waits for it.
    """
    masks = torch.stack([samples[0].mask if shared_mask else sample.mask for sample in samples])
    return PretrainBatch(
        torch.stack([sample.pixels for sample in samples]),
        masks,
        torch.tensor([sample.label for sample in samples]),
        [sample.name for sample in samples],
        None if pack is None else pack(masks),
    )


def collate_labeled(samples: Sequence[LabeledSample]) -> LabeledBatch:
    """Stacks samples."""
    return LabeledBatch(
        torch.stack([sample.pixels for sample in samples]),
        torch.tensor([sample.label for sample in samples]),
        [sample.name for sample in samples],
    )

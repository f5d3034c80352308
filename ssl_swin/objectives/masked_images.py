"""Masked images: one example, a batch, and how both are made of encoded samples."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.samples import Augmentation, PixelFormat, augmented, label_of
from ssl_swin.masking import random_mask


class MaskedExample(NamedTuple):
    """One image for masked image modeling."""

    pixels: Tensor  # uint8, uint16 or float32 (C, H, W)
    mask: Tensor  # bool (rows, columns), True = masked
    label: int  # class, or UNLABELLED
    name: str  # of the image in its set


class MaskedBatch(NamedTuple):
    """A batch for masked image modeling."""

    pixels: Tensor  # uint8, uint16 or float32 (B, C, H, W)
    mask: Tensor  # bool (B, rows, columns), True = masked
    labels: Tensor  # int64 (B,), UNLABELLED where there is none
    names: list[str]  # B
    plan: Any = None  # what the objective's encoder works out of the masks ahead of the step


class MaskedTransform:
    """Decodes, augments and masks one image."""

    def __init__(
        self,
        augmentation: Augmentation,
        pixels: PixelFormat,
        *,
        mask_grid: tuple[int, int],
        mask_ratio: float,
        seed: int,
    ) -> None:
        """Set the transform up.

        Args:
            augmentation: Crops and flips an image.
            pixels: Channels and dtype of a decoded image.
            mask_grid: Number of mask patches (rows, columns).
            mask_ratio: Fraction of mask patches to mask, in (0, 1).
            seed: Seed of all draws.
        """
        self.augmentation = augmentation
        self.pixels = pixels
        self.mask_grid = mask_grid
        self.mask_ratio = mask_ratio
        self.seed = seed

    def __call__(self, encoded: Any, epoch: int) -> MaskedExample:
        """Make the example of an encoded sample in an epoch."""
        sample = augmented(encoded, self.augmentation, self.pixels, seed=self.seed, epoch=epoch)
        masks = random_mask(
            self.mask_grid,
            self.mask_ratio,
            keyed_generator(self.seed, epoch, encoded.name, "mask"),
            batch_size=1,
        )
        return MaskedExample(sample.pixels, masks[0], label_of(encoded), encoded.name)


def collate_masked(
    examples: Sequence[MaskedExample],
    shared_mask: bool = False,
    plan: Callable[[Tensor], Any] | None = None,
) -> MaskedBatch:
    """Make a batch of examples.

    Args:
        examples: Examples to stack.
        shared_mask: Whether the first one's mask serves the whole batch.
        plan: Works something out of the masks (B, rows, columns), here where no step waits for it.
    """
    masks = torch.stack([examples[0].mask if shared_mask else each.mask for each in examples])
    return MaskedBatch(
        torch.stack([example.pixels for example in examples]),
        masks,
        torch.tensor([example.label for example in examples]),
        [example.name for example in examples],
        None if plan is None else plan(masks),
    )

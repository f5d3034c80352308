"""Several views of each image: one example, a batch, and how both are made of encoded samples."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.samples import Augmentation, PixelFormat
from ssl_swin.data.views import ColorViews


class ViewsExample(NamedTuple):
    """One image in several views."""

    views: list[Tensor]  # uint8, uint16 or float32 (C, H, W)
    name: str  # of the image in its set


class ViewsBatch(NamedTuple):
    """A batch of several views of each image."""

    pixels: Tensor  # the first views, uint8, uint16 or float32 (B, C, H, W)
    others: list[Tensor]  # further ones, each (B, C, H, W), perhaps of other sizes
    names: list[str]  # B


class ViewsTransform:
    """Decodes an image once, and makes several views of it.

    The crop of a view is a function of (seed, epoch, name, view), and so are its colours, by a
    generator of their own: neither depends on how many draws another took.
    """

    def __init__(
        self,
        crops: Sequence[Augmentation],
        colors: ColorViews,
        pixels: PixelFormat,
        *,
        seed: int,
    ) -> None:
        """Set the transform up.

        Args:
            crops: Crop and flip an image, one for each view.
            colors: Changes colours by rules of each view.
            pixels: What a decoded image is.
            seed: Seed of all draws.
        """
        self.crops = tuple(crops)
        self.colors = colors
        self.pixels = pixels
        self.seed = seed

    def __call__(self, encoded: Any, epoch: int) -> ViewsExample:
        """Make the example of an encoded sample in an epoch."""
        decoded = replace(decode_sample(encoded, self.pixels), name=encoded.name)
        key = self.seed, epoch, encoded.name
        views = []
        for view, crop in enumerate(self.crops):
            cropped = crop(decoded, keyed_generator(*key, f"view {view + 1}"))
            colors = keyed_generator(*key, f"colors of view {view + 1}")
            views.append(self.colors(cropped.pixels, view, colors))
        return ViewsExample(views, encoded.name)


def collate_views(examples: Sequence[ViewsExample]) -> ViewsBatch:
    """Make a batch of examples."""
    first, *others = (
        torch.stack(views) for views in zip(*(e.views for e in examples), strict=True)
    )
    return ViewsBatch(first, others, [example.name for example in examples])

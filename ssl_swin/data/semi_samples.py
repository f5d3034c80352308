"""Images without labels in two views, and batches of them beside images with boxes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_swin.data.affine import Matrix
from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.detect_samples import DIVISOR_PX, DetectBatch
from ssl_swin.data.encoded import IMAGE, EncodedSample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.semi_views import StrongView, WeakView


class UnlabelledSample(NamedTuple):
    """One image as the teacher and as the student see it."""

    weak: Tensor  # uint8, uint16 or float32 (C, H, W)
    strong: Tensor  # of the same type, (C, h, w)
    to_strong: Tensor  # float32 (3, 3): from a place in px of the weak view to one of the strong
    to_weak: Tensor  # float32 (3, 3): back
    name: str  # of the image in its set


class UnlabelledBatch(NamedTuple):
    """Images in two views, each filled up on the right and at the bottom."""

    weak: Tensor  # uint8, uint16 or float32 (U, C, H, W), 0 where filled up
    weak_sizes_px: Tensor  # int64 (U, 2): height and width of each
    strong: Tensor  # (U, C, h, w)
    strong_sizes_px: Tensor  # int64 (U, 2)
    to_strong: Tensor  # float32 (U, 3, 3)
    to_weak: Tensor  # float32 (U, 3, 3)
    names: list[str]  # U

    @property
    def pixels(self) -> Tensor:
        """The images as the teacher sees them, raw."""
        return self.weak


class SemiBatch(NamedTuple):
    """Images with boxes, and images without."""

    labelled: DetectBatch
    unlabelled: UnlabelledBatch

    @property
    def pixels(self) -> Tensor:
        """The images with boxes, raw."""
        return self.labelled.pixels

    @property
    def names(self) -> list[str]:
        """The names of all images."""
        return self.labelled.names + self.unlabelled.names


class UnlabelledTransform:
    """Decodes an image and makes two views of it, each with draws of its own."""

    def __init__(
        self, weak: WeakView, strong: StrongView, pixels: PixelFormat, *, seed: int
    ) -> None:
        """Set the transform up.

        Args:
            weak: The teacher's view.
            strong: The student's view.
            pixels: What a decoded image is.
            seed: Seed of all draws.
        """
        self.weak = weak
        self.strong = strong
        self.pixels = pixels
        self.seed = seed

    def __call__(self, encoded: EncodedSample, epoch: int) -> UnlabelledSample:
        """Make the example of an encoded sample in an epoch.

        Raises:
            UserError: If the image cannot be decoded.
        """
        pixels = decode_sample(encoded, self.pixels, members=(IMAGE,)).pixels
        weak, strong = (
            view(pixels, keyed_generator(self.seed, epoch, encoded.name, purpose))
            for view, purpose in ((self.weak, "weak view"), (self.strong, "strong view"))
        )
        to_strong = strong.matrix @ np.linalg.inv(weak.matrix)
        to_weak = weak.matrix @ np.linalg.inv(strong.matrix)
        return UnlabelledSample(
            weak.pixels.contiguous(),
            strong.pixels.contiguous(),
            _tensor(to_strong),
            _tensor(to_weak),
            encoded.name,
        )


def collate_unlabelled(
    samples: Sequence[UnlabelledSample], divisor_px: int = DIVISOR_PX
) -> UnlabelledBatch:
    """Fill views up to the largest height and width of their kind, and stack them.

    Args:
        samples: Examples.
        divisor_px: What the sides of the batch are multiples of.
    """
    weak, weak_sizes = _filled([sample.weak for sample in samples], divisor_px)
    strong, strong_sizes = _filled([sample.strong for sample in samples], divisor_px)
    return UnlabelledBatch(
        weak,
        weak_sizes,
        strong,
        strong_sizes,
        torch.stack([sample.to_strong for sample in samples]),
        torch.stack([sample.to_weak for sample in samples]),
        [sample.name for sample in samples],
    )


def _filled(images: Sequence[Tensor], divisor_px: int) -> tuple[Tensor, Tensor]:
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = (-(-sizes.amax(dim=0) // divisor_px) * divisor_px).tolist()
    filled = images[0].new_zeros((len(images), images[0].shape[0], height, width))
    for place, image in zip(filled, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return filled, sizes


def _tensor(matrix: Matrix) -> Tensor:
    return torch.from_numpy(matrix).float()

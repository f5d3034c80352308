"""From an encoded sample to a labelled example: decode, augment.

Every draw for a sample comes from a generator keyed by (seed, epoch, sample name, purpose).
"""

from typing import NamedTuple

from torch import Tensor

from ssl_swin.data.batch import UNLABELLED, LabeledSample
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.decode import decode_image
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.transforms import Augmentation

__all__ = ["Augmentation", "LabeledTransform", "PixelFormat", "augmented", "label_of"]


class PixelFormat(NamedTuple):
    """What a decoded image is."""

    channels: int
    dtype: str  # uint8, uint16 or float32; see `decode_image`


class LabeledTransform:
    """Decodes and augments one image, and keeps its label."""

    def __init__(self, augmentation: Augmentation, pixels: PixelFormat, *, seed: int) -> None:
        """Set the transform up.

        Args:
            augmentation: Crops, flips and colours of an image.
            pixels: Channels and dtype of a decoded image.
            seed: Seed of all draws.
        """
        self.augmentation = augmentation
        self.pixels = pixels
        self.seed = seed

    def __call__(self, encoded: EncodedSample, epoch: int) -> LabeledSample:
        """Make the example of an encoded sample in an epoch."""
        pixels = augmented(encoded, self.augmentation, self.pixels, seed=self.seed, epoch=epoch)
        return LabeledSample(pixels, label_of(encoded), encoded.name)


def augmented(
    encoded: EncodedSample,
    augmentation: Augmentation,
    pixels: PixelFormat,
    *,
    seed: int,
    epoch: int,
    purpose: str = "view",
) -> Tensor:
    """Decode an image and augment it, with draws of its own.

    Args:
        encoded: The sample.
        augmentation: Crops, flips and colours of an image.
        pixels: Channels and dtype of a decoded image.
        seed: Seed of the run.
        epoch: Number of the pass over the data, from 0.
        purpose: What the draws are for; another view of the same image needs another word.

    Returns:
        Pixels (C, H, W) of the dtype asked for.
    """
    decoded = decode_image(
        encoded.data, channels=pixels.channels, dtype=pixels.dtype, name=encoded.name
    )
    return augmentation.on_pixels(decoded, keyed_generator(seed, epoch, encoded.name, purpose))


def label_of(encoded: EncodedSample) -> int:
    """Return the class of a sample, UNLABELLED where it has none."""
    return UNLABELLED if encoded.label is None else encoded.label

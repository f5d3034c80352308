"""From an encoded sample to a labelled example: decode, augment.

Every draw for a sample comes from a generator keyed by (seed, epoch, sample name, purpose).
"""

from collections.abc import Collection

from ssl_swin.data.batch import UNLABELLED, LabeledSample
from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.encoded import IMAGE, EncodedSample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.sample import Sample
from ssl_swin.data.transforms import Augmentation

__all__ = ["Augmentation", "LabeledTransform", "PixelFormat", "augmented", "label_of"]


class LabeledTransform:
    """Decodes and augments one image, and keeps its label."""

    def __init__(self, augmentation: Augmentation, pixels: PixelFormat, *, seed: int) -> None:
        """Set the transform up.

        Args:
            augmentation: Crops, flips and colours of an image.
            pixels: What a decoded image is.
            seed: Seed of all draws.
        """
        self.augmentation = augmentation
        self.pixels = pixels
        self.seed = seed

    def __call__(self, encoded: EncodedSample, epoch: int) -> LabeledSample:
        """Make the example of an encoded sample in an epoch."""
        sample = augmented(encoded, self.augmentation, self.pixels, seed=self.seed, epoch=epoch)
        return LabeledSample(sample.pixels, label_of(encoded), encoded.name)


def augmented(
    encoded: EncodedSample,
    augmentation: Augmentation,
    pixels: PixelFormat,
    *,
    seed: int,
    epoch: int,
    purpose: str = "view",
    members: Collection[str] = (),
) -> Sample:
    """Decode a sample and augment it, with draws of its own.

    Args:
        encoded: The sample.
        augmentation: Crops, flips and colours; a mask and boxes follow the pixels.
        pixels: What a decoded image is.
        seed: Seed of the run.
        epoch: Number of the pass over the data, from 0.
        purpose: What the draws are for; another view of the same image needs another word.
        members: Names of the members to decode besides the image, as ("mask",).

    Raises:
        UserError: If the image or a member cannot be decoded.
    """
    decoded = decode_sample(encoded, pixels, members=(IMAGE, *members))
    return augmentation(decoded, keyed_generator(seed, epoch, encoded.name, purpose))


def label_of(encoded: EncodedSample) -> int:
    """Return the class of a sample, UNLABELLED where it has none."""
    return UNLABELLED if encoded.label is None else encoded.label

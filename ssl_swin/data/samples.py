"""From a packed image to a training sample: decode, view, mask.

Every draw for a sample comes from a generator keyed by (seed, epoch, sample name).
"""

from ssl_swin.data.batch import UNLABELLED, LabeledSample, MaskedSample
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.decode import decode_image
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.transforms import Augmentation
from ssl_swin.masking import random_mask


class MaskedSamples:
    """Makes samples for masked image modelling."""

    def __init__(
        self,
        view: Augmentation,
        *,
        channels: int,
        dtype: str,
        mask_units: tuple[int, int],
        mask_ratio: float,
        seed: int,
    ) -> None:
        """Sets the maker up.

        Args:
            view: Geometry of the sample.
            channels: Of an image.
            dtype: Of its pixels: uint8, uint16 or float32; see `decode_image`.
            mask_units: Mask units (rows, columns).
            mask_ratio: Fraction of units to mask, in (0, 1).
            seed: Of all draws.
        """
        self.view = view
        self.channels = channels
        self.dtype = dtype
        self.mask_units = mask_units
        self.mask_ratio = mask_ratio
        self.seed = seed

    def __call__(self, record: EncodedSample, epoch: int) -> MaskedSample:
        """Decodes, crops and masks one image."""
        pixels = decode_image(
            record.data, channels=self.channels, dtype=self.dtype, name=record.name
        )
        view = self.view.on_pixels(pixels, keyed_generator(self.seed, epoch, record.name, "view"))
        masks = random_mask(
            self.mask_units,
            self.mask_ratio,
            keyed_generator(self.seed, epoch, record.name, "mask"),
            batch_size=1,
        )
        return MaskedSample(view, masks[0], _label(record), record.name)


class LabeledSamples:
    """Makes samples for classification."""

    def __init__(self, view: Augmentation, *, channels: int, dtype: str, seed: int) -> None:
        """Sets the maker up; see `MaskedSamples`."""
        self.view = view
        self.channels = channels
        self.dtype = dtype
        self.seed = seed

    def __call__(self, record: EncodedSample, epoch: int) -> LabeledSample:
        """Decodes and augments one image."""
        pixels = decode_image(
            record.data, channels=self.channels, dtype=self.dtype, name=record.name
        )
        view = self.view.on_pixels(pixels, keyed_generator(self.seed, epoch, record.name, "view"))
        return LabeledSample(view, _label(record), record.name)


def _label(record: EncodedSample) -> int:
    return UNLABELLED if record.label is None else record.label

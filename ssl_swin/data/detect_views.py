"""The augmentation of detection: flip, then a random size, or a random crop between two sizes.

Reference: the training pipeline of Swin's detection code (`configs/swin/mask_rcnn_swin_*.py`), in
its order. Held-out images are seen whole (`WholeImage`).

Differs from the reference: images are resized with antialiasing; of a mask, each new pixel takes
what lies at its centre.
"""

import numpy as np
from torchvision.transforms.v2 import InterpolationMode

from ssl_swin.arguments import Fraction, Side, SideRange, Sides, checked
from ssl_swin.data.geometry import Size, contiguous, crop, flip, resize
from ssl_swin.data.sample import Sample
from ssl_swin.data.segment_views import size_within
from ssl_swin.data.transforms import Augmentation


class DetectAugmentation(Augmentation):
    """Flip, and one of two: a random size; or a size, a crop of random size, and a random size.

    The draws are in this order: the flip, which of the two, the size before the crop, the crop's
    height and width, its place, the final size. An image keeps its shape, so results differ in size
    and a batch is filled up; a crop may hold no object.
    """

    @checked
    def __init__(
        self,
        size_px: Size | None = None,
        *,
        flip_probability: Fraction,
        short_px: Sides,
        long_px: Side,
        crop_probability: Fraction,
        crop_short_px: Sides,
        crop_px: SideRange,
    ) -> None:
        """Set the augmentation up.

        Args:
            size_px: The size that the encoder was built for. It has no effect: images keep their
                shape.
            flip_probability: Probability of a horizontal flip.
            short_px: Lengths of the shorter side that images are scaled to, one drawn for each.
            long_px: What the longer side has at most, for which the shorter one is then less.
            crop_probability: Probability of a crop before that.
            crop_short_px: Lengths of the shorter side that images to be cropped are scaled to.
            crop_px: Smallest and largest side of a crop, cut off where the image is smaller.
        """
        self.flip_probability = flip_probability
        self.short_px = tuple(short_px)
        self.long_px = long_px
        self.crop_probability = crop_probability
        self.crop_short_px = tuple(crop_short_px)
        self.crop_px = crop_px

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """Return the augmented sample; boxes and all that belongs to them follow the pixels."""
        if generator.random() < self.flip_probability:
            sample = flip(sample)
        if generator.random() < self.crop_probability:
            sample = self._scaled(sample, self.crop_short_px, generator)
            sample = self._cropped(sample, generator)
        return contiguous(self._scaled(sample, self.short_px, generator))

    def _scaled(
        self, sample: Sample, lengths_px: tuple[int, ...], generator: np.random.Generator
    ) -> Sample:
        short_px = lengths_px[int(generator.integers(len(lengths_px)))]
        size_px = size_within(sample.size_px, short_px, self.long_px)
        return resize(sample, size_px, InterpolationMode.BILINEAR)

    def _cropped(self, sample: Sample, generator: np.random.Generator) -> Sample:
        least, most = self.crop_px
        height, width = (
            int(generator.integers(min(side, least), min(side, most) + 1))
            for side in sample.size_px
        )
        top, left = (
            int(generator.integers(side - new + 1))
            for side, new in zip(sample.size_px, (height, width), strict=True)
        )
        return crop(sample, top, left, height, width)

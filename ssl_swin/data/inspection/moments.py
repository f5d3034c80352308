"""Mean, deviation and range of pixel values per channel, one image after another."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PerChannel = NDArray[np.float64]  # (C,)


class Moments(NamedTuple):
    """What is known of all pixels seen so far, in raw pixel values."""

    num_pixels: int  # per channel
    mean: PerChannel
    squares: PerChannel  # sum of squared deviations from the mean
    lowest: PerChannel
    highest: PerChannel

    @property
    def std(self) -> PerChannel:
        """Standard deviation over all pixels."""
        deviation: PerChannel = np.sqrt(self.squares / self.num_pixels)
        return deviation


def image_moments(pixels: NDArray[np.generic]) -> Moments:
    """Measures one image.

    Args:
        pixels: (C, H, W), any real dtype.
    """
    measured = [_channel_moments(channel.astype(np.float64)) for channel in pixels]
    mean, squares, lowest, highest = np.array(measured, dtype=np.float64).T
    return Moments(pixels[0].size, mean, squares, lowest, highest)


def join(first: Moments, second: Moments) -> Moments:
    """Gives the moments of the pixels of both (Chan, Golub, LeVeque 1979: no cancellation)."""
    num_pixels = first.num_pixels + second.num_pixels
    share = second.num_pixels / num_pixels
    gap = second.mean - first.mean
    return Moments(
        num_pixels,
        first.mean + gap * share,
        first.squares + second.squares + gap**2 * share * first.num_pixels,
        np.minimum(first.lowest, second.lowest),
        np.maximum(first.highest, second.highest),
    )


def _channel_moments(values: NDArray[np.float64]) -> tuple[float, float, float, float]:
    mean = values.mean()
    lowest, highest = values.min(), values.max()
    values -= mean
    return float(mean), float((values**2).sum()), float(lowest), float(highest)

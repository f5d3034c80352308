"""Mean, deviation and range of pixel values per channel, one image after another."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PerChannel = NDArray[np.float64]  # (C,)


class RunningStatistics(NamedTuple):
    """Mean, deviation and range of all pixels seen so far, in raw pixel values."""

    num_pixels: int  # per channel
    mean: PerChannel
    squared_deviations: PerChannel  # sum of squared deviations from the mean
    lowest: PerChannel
    highest: PerChannel

    @property
    def std(self) -> PerChannel:
        """Standard deviation over all pixels."""
        deviation: PerChannel = np.sqrt(self.squared_deviations / self.num_pixels)
        return deviation


def image_statistics(pixels: NDArray[np.generic]) -> RunningStatistics:
    """Measure one image.

    Args:
        pixels: Pixels of the image, (C, H, W) of any real dtype.
    """
    measured = [_channel_statistics(channel.astype(np.float64)) for channel in pixels]
    mean, squared_deviations, lowest, highest = np.array(measured, dtype=np.float64).T
    return RunningStatistics(pixels[0].size, mean, squared_deviations, lowest, highest)


def merge(first: RunningStatistics, second: RunningStatistics) -> RunningStatistics:
    """Return the statistics of both (Chan, Golub, LeVeque 1979: no cancellation)."""
    num_pixels = first.num_pixels + second.num_pixels
    share = second.num_pixels / num_pixels
    gap = second.mean - first.mean
    return RunningStatistics(
        num_pixels,
        first.mean + gap * share,
        first.squared_deviations + second.squared_deviations + gap**2 * share * first.num_pixels,
        np.minimum(first.lowest, second.lowest),
        np.maximum(first.highest, second.highest),
    )


def _channel_statistics(values: NDArray[np.float64]) -> tuple[float, float, float, float]:
    mean = values.mean()
    lowest, highest = values.min(), values.max()
    values -= mean
    return float(mean), float((values**2).sum()), float(lowest), float(highest)

"""Mean, deviation and range of pixel values per channel, one image after another."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.images.missing import Truth

PerChannel = NDArray[np.float64]  # (C,)


class RunningStatistics(NamedTuple):
    """Mean, deviation and range of all pixels seen so far, in raw pixel values."""

    num_pixels: PerChannel  # that hold data
    mean: PerChannel
    squared_deviations: PerChannel  # sum of squared deviations from the mean
    lowest: PerChannel
    highest: PerChannel

    @property
    def std(self) -> PerChannel:
        """Standard deviation over all pixels."""
        deviation: PerChannel = np.sqrt(self.squared_deviations / self.num_pixels)
        return deviation


def image_statistics(
    pixels: NDArray[np.generic], missing: Truth | None = None
) -> RunningStatistics:
    """Measure one image.

    Args:
        pixels: Pixels of the image, (C, H, W) of any real dtype.
        missing: Which of them are no data and do not count; None for none.
    """
    channels = pixels if missing is None else [p[~m] for p, m in zip(pixels, missing, strict=True)]
    measured = [_channel_statistics(channel.astype(np.float64)) for channel in channels]
    return RunningStatistics(*np.array(measured, dtype=np.float64).T)


def merge(first: RunningStatistics, second: RunningStatistics) -> RunningStatistics:
    """Return the statistics of both (Chan, Golub, LeVeque 1979: no cancellation)."""
    num_pixels = first.num_pixels + second.num_pixels
    share = second.num_pixels / np.maximum(num_pixels, 1)
    gap = second.mean - first.mean
    return RunningStatistics(
        num_pixels,
        first.mean + gap * share,
        first.squared_deviations + second.squared_deviations + gap**2 * share * first.num_pixels,
        np.minimum(first.lowest, second.lowest),
        np.maximum(first.highest, second.highest),
    )


def _channel_statistics(values: NDArray[np.float64]) -> tuple[float, ...]:
    if not values.size:
        return 0, 0.0, 0.0, np.inf, -np.inf
    mean = values.mean()
    lowest, highest = values.min(), values.max()
    values -= mean
    return values.size, float(mean), float((values**2).sum()), float(lowest), float(highest)

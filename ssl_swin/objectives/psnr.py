"""Peak signal-to-noise ratio of predicted pixels, over a whole set of images."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric


class MaskedPsnr(Metric):
    """10 log10(peak^2 / mean squared error) in dB, of the masked pixels of all images together.

    Errors are those of values before normalisation, neither rounded nor clipped. The peak is 1 for
    integer pixels, whose values are levels over the full scale, and for float32 the range of all
    values that were seen. Without an error it is infinite, without a masked pixel nan.
    """

    higher_is_better = True
    squared_error: Tensor
    count: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self) -> None:
        super().__init__()
        infinity = torch.tensor(torch.inf)
        self.add_state("squared_error", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("lowest", infinity, dist_reduce_fx="min")
        self.add_state("highest", -infinity, dist_reduce_fx="max")

    def update(self, error: Tensor, masked: Tensor, pixels: Tensor) -> None:
        """Add the images of a batch.

        Args:
            error: Prediction less truth in values before normalisation, (B, C, H, W).
            masked: Bool (B, 1, H, W), True = masked.
            pixels: The raw images, uint8, uint16 or float32 (B, C, H, W).
        """
        squares = torch.where(masked, error.float().square(), 0.0)
        self.squared_error += squares.sum()
        self.count += masked.sum() * error.shape[1]
        if pixels.is_floating_point():
            lowest, highest = pixels.aminmax()
        else:
            lowest, highest = torch.zeros_like(self.lowest), torch.ones_like(self.highest)
        self.lowest = torch.minimum(self.lowest, lowest.to(self.lowest.dtype))
        self.highest = torch.maximum(self.highest, highest.to(self.highest.dtype))

    def compute(self) -> Tensor:
        """Return the ratio in dB."""
        peak = self.highest - self.lowest
        return 10 * torch.log10(peak.square() / (self.squared_error / self.count))


def deviations(normalize: Callable[[Tensor], Tensor], channels: int, like: Tensor) -> Tensor:
    """Return what a normalisation divides the values of each channel by, (1, C, 1, 1).

    Args:
        normalize: Turns pixels (B, C, H, W) into images; float32 pixels are values as they are.
        channels: C.
        like: On the device of the images.
    """
    ends = torch.zeros(2, channels, 1, 1, device=like.device)
    ends[1] = 1.0
    at_0, at_1 = normalize(ends)
    scale: Tensor = (1 / (at_1 - at_0)).unsqueeze(0)
    return scale

"""What masked image modeling predicts: the image itself, or the image normalised piece by piece.

References: SimMIM (arXiv:2111.09886) predicts normalised images; Swin Transformer V2's recipe
normalises over a window around each pixel; MAE (arXiv:2111.06377, section 4.1) over each patch.
"""

from abc import ABC, abstractmethod
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_VARIANCE = 1e-6  # added to every variance


class Target(ABC):
    """Turns normalised images into what is predicted, and predictions back."""

    phrase = ""  # what `describe` adds

    @abstractmethod
    def of(self, images: Tensor) -> Tensor:
        """Return the target of normalised float32 images (B, C, H, W), of the same shape."""

    @abstractmethod
    def to_image_space(self, prediction: Tensor, images: Tensor) -> Tensor:
        """Bring a prediction (B, C, H, W) back to the space of the images, both float32.

        Statistics of a piece are those of the true image, which a model does not know: such figures
        show structure, and borrow brightness and contrast.
        """


class ImageTarget(Target):
    """The normalised image itself."""

    def of(self, images: Tensor) -> Tensor:
        """See `Target.of`."""
        return images

    def to_image_space(self, prediction: Tensor, images: Tensor) -> Tensor:
        """See `Target.to_image_space`."""
        return prediction


class WindowTarget(Target):
    """Each pixel normalised over the window around it, per channel."""

    def __init__(self, window_px: int) -> None:
        self.window_px = window_px
        self.phrase = f"target normalised over {window_px} px"

    def of(self, images: Tensor) -> Tensor:
        """See `Target.of`."""
        return normalize_locally(images, self.window_px)

    def to_image_space(self, prediction: Tensor, images: Tensor) -> Tensor:
        """See `Target.to_image_space`."""
        mean, deviation = local_statistics(images, self.window_px)
        return prediction * deviation + mean


class PatchTarget(Target):
    """Each patch normalised as a whole, over its pixels and channels together, as MAE does."""

    def __init__(self, patch_px: int) -> None:
        self.patch_px = patch_px
        self.phrase = f"target normalised over patches of {patch_px} px"

    def of(self, images: Tensor) -> Tensor:
        """See `Target.of`."""
        mean, deviation = self._statistics(images)
        return (images - mean) / deviation

    def to_image_space(self, prediction: Tensor, images: Tensor) -> Tensor:
        """See `Target.to_image_space`."""
        mean, deviation = self._statistics(images)
        return prediction * deviation + mean

    def _statistics(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each pixel's patch, (B, 1, H, W); the variance is unbiased."""
        side, (batch_size, channels, height, width) = self.patch_px, images.shape
        patches = images.reshape(batch_size, channels, height // side, side, width // side, side)
        variance, mean = torch.var_mean(patches, dim=(1, 3, 5), correction=1)

        def spread(values: Tensor) -> Tensor:
            wide = values.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)
            return wide[:, None]

        return spread(mean), spread((variance + _LEAST_VARIANCE).sqrt())


def normalize_locally(images: Tensor, window_px: int) -> Tensor:
    """Standardises each pixel by the mean and deviation of the window around it, per channel.

    Differs from the reference: the image's own mean is subtracted first, and the statistics are
    computed in double precision. Neither changes anything in exact arithmetic; in float32,
    `E[x^2] - E[x]^2` cancels on flat areas, such as the background of a product photograph.

    Args:
        images: float32 or float64 (B, C, H, W).
        window_px: Odd side of the window.

    Returns:
        Same shape and dtype.
    """
    centred = images - images.mean(dim=(-2, -1), keepdim=True)
    mean, deviation = local_statistics(centred, window_px)
    return ((centred - mean) / deviation).to(images.dtype)


def local_statistics(images: Tensor, window_px: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the window around each pixel, per channel.

    Windows at the border use only the pixels inside the image; the variance is unbiased, and 1e-6
    is added to it.

    Args:
        images: float (B, C, H, W).
        window_px: Odd side of the window.

    Returns:
        Mean and deviation in float64 (float32 on Apple's MPS, which has no other), each of the
        images' shape.
    """
    images = images.float() if images.device.type == "mps" else images.double()
    mean = _window_mean(images, window_px)
    variance = _window_mean(images.square(), window_px) - mean.square()
    count = _window_count(images, window_px)
    return mean, ((variance * count / (count - 1)).clamp(min=0) + _LEAST_VARIANCE).sqrt()


def _window_mean(images: Tensor, window_px: int) -> Tensor:
    """Mean over the pixels of the window inside the image: down its columns, then along rows."""
    half = window_px // 2
    pool = partial(F.avg_pool2d, stride=1, count_include_pad=False)
    columns = pool(images, (window_px, 1), padding=(half, 0))
    return pool(columns, (1, window_px), padding=(0, half))


def _window_count(images: Tensor, window_px: int) -> Tensor:
    """Number of pixels of the window that lie inside the image, (H, W)."""
    height, width = (_reach(side, window_px, images) for side in images.shape[-2:])
    return height[:, None] * width


def _reach(side_px: int, window_px: int, like: Tensor) -> Tensor:
    at, half = torch.arange(side_px, device=like.device), window_px // 2
    reach = (at + half).clamp(max=side_px - 1) - (at - half).clamp(min=0) + 1
    return reach.to(like.dtype)

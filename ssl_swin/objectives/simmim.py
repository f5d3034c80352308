"""SimMIM: predict the raw pixels of masked units from an encoder that sees mask tokens.

Reference: SimMIM (arXiv:2111.09886); the normalised target is that of Swin Transformer V2's SimMIM
recipe. Equal to the original implementation to rounding, see tests/test_golden.py.
"""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask


class SimMIMOutput(NamedTuple):
    """What one forward pass gives."""

    loss: Tensor  # scalar: mean absolute error over masked pixels and channels
    prediction: Tensor  # (B, C, H, W), in the space of the target
    features: Tensor  # (B, num_features, H/stride, W/stride), the encoder's last map


class MaskedImageModel(nn.Module):
    """An encoder under pretraining, and what its reconstructions are measured against."""

    def __init__(self, encoder: Encoder, *, normalize_target_window_px: int | None = None) -> None:
        """Wraps an encoder.

        Args:
            encoder: The encoder to pretrain; gives strides, widths and channels.
            normalize_target_window_px: Odd side of the window over which the target is normalised
                locally (Swin V2 recipe: 47); None predicts the normalised image itself (SimMIM).

        Raises:
            UserError: If the window is even or below 3.
        """
        super().__init__()
        window_px = normalize_target_window_px
        if window_px is not None and (window_px < 3 or window_px % 2 == 0):
            raise UserError(f"the target's window must be odd and at least 3 px, got {window_px}")
        self.encoder = encoder
        self.normalize_target_window_px = window_px

    def target(self, images: Tensor) -> Tensor:
        """Gives what is to be predicted for normalised images (B, C, H, W), in float32."""
        with torch.autocast(images.device.type, enabled=False):
            if self.normalize_target_window_px is None:
                return images.float()
            return normalize_locally(images.float(), self.normalize_target_window_px)

    def mean_guess_loss(self, images: Tensor, mask: Tensor) -> Tensor:
        """Loss of painting the mean of the target, zero, everywhere: what learning must beat."""
        target = self.target(images)
        return masked_l1(torch.zeros_like(target), target, mask)


class SimMIM(MaskedImageModel):
    """Mask token, encoder, and a one-layer head that paints pixels.

    The mask token lives here and not in the encoder, so that fine-tuning has no unused parameter.
    """

    def __init__(self, encoder: Encoder, *, normalize_target_window_px: int | None = None) -> None:
        """Wraps an encoder; see `MaskedImageModel`."""
        super().__init__(encoder, normalize_target_window_px=normalize_target_window_px)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, encoder.embed_dim))
        bound = encoder.init_bound
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-bound, b=bound)
        self.decoder = nn.Sequential(
            nn.Conv2d(encoder.num_features, encoder.stride**2 * encoder.in_chans, kernel_size=1),
            nn.PixelShuffle(encoder.stride),
        )

    def forward(self, images: Tensor, mask: Tensor) -> SimMIMOutput:
        """Reconstructs masked images.

        Args:
            images: Normalised (B, C, H, W).
            mask: Bool (B, rows, columns), True = masked, on any grid that the patch grid is a
                multiple of.

        Raises:
            UserError: If the mask does not fit the patch grid.
        """
        tokens = self.encoder.embed(images)
        hidden = expand_mask(mask, (tokens.shape[1], tokens.shape[2]))
        tokens = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), tokens)
        features = self.encoder.encode(tokens)
        prediction = self.decoder(features)
        return SimMIMOutput(
            masked_l1(prediction, self.target(images), hidden), prediction, features
        )


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over the masked pixels and channels of the whole batch, in float32.

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W).
        mask: Bool (B, rows, columns), True = masked; expanded to pixels.

    Returns:
        Scalar `sum(|target - prediction| * mask) / (sum(mask) + 1e-5) / C`.
    """
    height_px, width_px = target.shape[-2:]
    weights = expand_mask(mask, (height_px, width_px)).unsqueeze(1).float()
    error = (target.float() - prediction.float()).abs()
    return (error * weights).sum() / (weights.sum() + 1e-5) / target.shape[1]


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
    return mean, ((variance * count / (count - 1)).clamp(min=0) + 1e-6).sqrt()


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

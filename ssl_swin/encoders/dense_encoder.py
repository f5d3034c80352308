"""What segmentation and detection see of an encoder: a normed map per stage, of images of any size.

Reference: `swin_transformer.py` of Swin's segmentation and detection code. The norms are fresh: the
norm that ended the pretrained network is not one of them, and is not trained.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_swin.arguments import checked
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError


class MapNorms(nn.ModuleList):
    """A LayerNorm over the channels of each map, weight 1 and bias 0 at first."""

    def __init__(self, channels: Sequence[int]) -> None:
        """Make the norms.

        Args:
            channels: Width of each map.
        """
        super().__init__(nn.LayerNorm(width) for width in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Norm maps (B, C_i, h_i, w_i), each by its own."""
        pairs = zip(self, maps, strict=True)
        return [norm(each.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for norm, each in pairs]


class DenseEncoder(nn.Module):
    """An encoder and norms of its maps.

    Attributes:
        encoder: The encoder; what comes after its last stage is not trained.
        norms: One for each map.
        channels: Width of each map.
    """

    @checked
    def __init__(self, encoder: Encoder) -> None:
        """Put fresh norms on an encoder.

        Args:
            encoder: Pretrained, or with random weights.

        Raises:
            UserError: If it takes images of its own size alone, or its stages have windows of
                different sizes, as at small images.
        """
        super().__init__()
        check_dense(encoder)
        self.encoder = encoder
        self.channels = tuple(encoder.stage_dims)
        self.norms = MapNorms(self.channels)
        leave_out_last_norm(encoder)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Turn normalised images (B, C, H, W) of any size into maps (B, C_i, H_i, W_i).

        Zeros fill up what windows and patches do not divide, so that sides are H and W over the
        stride of the stage, rounded up. Images of unlike sizes make a batch as in `batch_of`.

        Raises:
            UserError: If the images have other channels than the encoder, or no pixel.
        """
        maps: list[Tensor] = self.norms(self.encoder.maps_any_size(images))
        return maps


def check_dense(encoder: Encoder) -> None:
    """Refuse an encoder that has no use for images of any size.

    Args:
        encoder: The encoder.

    Raises:
        UserError: With what to take instead.
    """
    if not encoder.takes_any_size:
        encoder.maps_any_size(torch.empty(0))  # says what takes them
    windows = set(encoder.bias_windows())
    if len(windows) > 1:
        sides = [side for each in windows for side in ((each,) if isinstance(each, int) else each)]
        window = max(sides)
        raise UserError(
            f"the stages of this {encoder.title} have windows of "
            f"{', '.join(map(str, encoder.bias_windows()))} tokens, since its last maps are "
            "smaller than a window, and images of any size need one in all: set "
            f"model.window_size={window} model.img_size_px={window * encoder.stride}, which "
            "resizes the position biases"
        )


def leave_out_last_norm(encoder: Encoder) -> None:
    """Keep from training what comes after the last stage, which no map sees.

    Args:
        encoder: The encoder, which is changed.
    """
    for name, parameter in encoder.model.named_parameters():
        if re.match(encoder.last_norm, name):
            parameter.requires_grad_(False)


def batch_of(images: Sequence[Tensor]) -> Tensor:
    """Put normalised images (C, h, w) of unlike sizes into one batch.

    As in the original, zeros fill up each on the right and at the bottom to the largest. They are
    not neutral: windows at the border attend to them.

    Args:
        images: At least one, all with the same channels.

    Returns:
        (B, C, H, W), H and W those of the highest and the widest.

    Raises:
        UserError: If there is none, or they differ in channels.
    """
    if not images or len({each.shape[:-2] for each in images}) > 1:
        shapes = ", ".join(str(tuple(each.shape)) for each in images) or "none"
        raise UserError(f"a batch is of images with the same channels, got {shapes}")
    height, width = (max(each.shape[side] for each in images) for side in (-2, -1))
    batch = images[0].new_zeros((len(images), *images[0].shape[:-2], height, width))
    for place, image in zip(batch, images, strict=True):
        place[..., : image.shape[-2], : image.shape[-1]] = image
    return batch

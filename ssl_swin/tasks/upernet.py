"""UPerNet's heads: what turns maps of four strides into a score per class and place.

Reference: UPerNet (arXiv:1807.10221) as in Swin's segmentation code, `uper_head.py` and
`fcn_head.py`; names of parameters are those of its published checkpoints, without the prefix
`decode_head.` or `auxiliary_head.`. On several devices, batch norms are to be synchronised.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_swin.arguments import NotEmpty, Positive, RateBelow1, Several, checked

POOLED_SIDES = (1, 2, 3, 6)  # of the last map's pyramid, in places
CLASSIFIER_STD = 0.01  # of the last layer's weights at the start


class ConvNormRelu(nn.Module):
    """A convolution that keeps the size, a batch norm and a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        """Draw weights from N(0, 2 / (out * k * k)) (He et al., by fan out).

        Args:
            in_channels: Width of the map that it takes.
            out_channels: Width of the map that it makes.
            kernel: Side of the kernel, odd.
        """
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        std = math.sqrt(2 / (out_channels * kernel**2))
        nn.init.normal_(self.conv.weight, std=std)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, out, h, w) of a map (B, in, h, w)."""
        return functional.relu(self.bn(self.conv(features)))


class _Head(nn.Module):
    """What both heads end in: whole channels dropped, then a score per class."""

    def __init__(self, channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.conv_seg.weight, std=CLASSIFIER_STD)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]

    def classified(self, features: Tensor) -> Tensor:
        """Return scores (B, classes, h, w) of a map (B, channels, h, w)."""
        scores: Tensor = self.conv_seg(self.dropout(features))
        return scores


class UPerHead(_Head):
    """Pools the last map at four sizes, adds it downwards to the others, and joins all levels."""

    @checked
    def __init__(
        self,
        in_channels: NotEmpty,
        *,
        channels: Positive,
        num_classes: Several,
        dropout: RateBelow1 = 0.1,
    ) -> None:
        """Build the head with random weights.

        Args:
            in_channels: Width of each map, from the largest map to the smallest.
            channels: Width of the head; 512 in the recipes.
            num_classes: Number of classes.
            dropout: Probability that a channel is dropped before the last layer.
        """
        super().__init__(channels, num_classes, dropout)
        *lower, last = in_channels
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), ConvNormRelu(last, channels, 1))
            for side in POOLED_SIDES
        )
        pooled = last + len(POOLED_SIDES) * channels
        self.bottleneck = ConvNormRelu(pooled, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvNormRelu(width, channels, 1) for width in lower)
        self.fpn_convs = nn.ModuleList(ConvNormRelu(channels, channels, 3) for _ in lower)
        self.fpn_bottleneck = ConvNormRelu(len(in_channels) * channels, channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return scores (B, classes, h_0, w_0) of maps (B, C_i, h_i, w_i), the largest first."""
        levels = [conv(each) for conv, each in zip(self.lateral_convs, maps[:-1], strict=True)]
        levels.append(self._pooled(maps[-1]))
        for level in range(len(levels) - 1, 0, -1):
            levels[level - 1] = levels[level - 1] + upsampled(levels[level], levels[level - 1])
        joined = [conv(each) for conv, each in zip(self.fpn_convs, levels[:-1], strict=True)]
        joined.append(levels[-1])
        joined = [joined[0], *(upsampled(each, joined[0]) for each in joined[1:])]
        return self.classified(self.fpn_bottleneck(torch.cat(joined, dim=1)))

    def _pooled(self, last: Tensor) -> Tensor:
        pyramid = [upsampled(pool(last), last) for pool in self.psp_modules]
        joined: Tensor = self.bottleneck(torch.cat([last, *pyramid], dim=1))
        return joined


class FCNHead(_Head):
    """One convolution on one map: the auxiliary head, which only training uses."""

    @checked
    def __init__(
        self,
        in_channels: Positive,
        *,
        channels: Positive,
        num_classes: Several,
        dropout: RateBelow1 = 0.1,
    ) -> None:
        """Build the head with random weights.

        Args:
            in_channels: Width of the map.
            channels: Width of the head; 256 in the recipes.
            num_classes: Number of classes.
            dropout: As in `UPerHead`.
        """
        super().__init__(channels, num_classes, dropout)
        self.convs = nn.Sequential(ConvNormRelu(in_channels, channels, 3))

    def forward(self, features: Tensor) -> Tensor:
        """Return scores (B, classes, h, w) of a map (B, C, h, w)."""
        return self.classified(self.convs(features))


def upsampled(values: Tensor, like: Tensor | tuple[int, int]) -> Tensor:
    """Return a map (B, C, h, w) of another size, bilinear between the centres of places.

    Args:
        values: The map.
        like: A map of that size, or (height, width).
    """
    size = (like.shape[-2], like.shape[-1]) if isinstance(like, Tensor) else like
    return functional.interpolate(values, size, mode="bilinear", align_corners=False)

"""Momentum teachers: a copy of a network that follows it, and how fast along a run."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from ssl_swin.encoders.build import build_encoder
from ssl_swin.encoders.encoder import Encoder


def momentum_encoder(encoder: Encoder) -> Encoder:
    """Return a copy of an encoder that no gradient changes, without drop path."""
    device = next(encoder.parameters()).device
    with torch.device(device):  # also where weights have no values yet
        copied = build_encoder(encoder.architecture, encoder.model_args)
    copied.load_state_dict(encoder.state_dict())
    return copied.requires_grad_(False)


@torch.no_grad()
def follow(followers: Iterable[nn.Module], leaders: Iterable[nn.Module], momentum: float) -> None:
    """Move parameters towards others: `momentum * own + (1 - momentum) * other`.

    Buffers, as batch statistics, stay each module's own.

    Args:
        followers: Modules that move.
        leaders: As many modules, with the same parameters.
        momentum: What remains, in [0, 1].
    """
    for follower, leader in zip(followers, leaders, strict=True):
        pairs = zip(follower.parameters(), leader.parameters(), strict=True)
        for mine, theirs in pairs:
            mine.lerp_(theirs.detach().to(mine.dtype), 1 - momentum)


def cosine_momentum(start: float, share: float) -> float:
    """Return the momentum that rises from a start to 1 in half a cosine.

    Args:
        start: At the start of a run, in [0, 1].
        share: Share of the run that is done, in [0, 1].
    """
    return 1 - (1 - start) * (math.cos(math.pi * share) + 1) / 2

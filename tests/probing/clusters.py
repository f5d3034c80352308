"""What the tests of probes share: features that a probe separates, and a recipe."""

from typing import Any

import torch

from ssl_swin.probing.features import Features

RECIPE: dict[str, Any] = {
    "optimizer": "sgd",
    "batch_size": 64,
    "epochs": 10,
    "warmup_epochs": 1,
    "weight_decay": 0.0,
    "momentum": 0.9,
    "seed": 0,
}


def clusters(num_samples: int, seed: int) -> Features:
    """Three well separated clusters in 8 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_samples) % 3
    centres = 4 * torch.eye(3, 8)
    return Features(centres[labels] + torch.randn(num_samples, 8, generator=generator), labels)

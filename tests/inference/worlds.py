"""Images and a small backbone for commands that put one through the other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.weights.backbone import save_backbone

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def draw(folder: Path, number: int, *, seed: int = 0) -> list[Path]:
    """Draws images of odd sizes into two class folders; returns their paths in order."""
    rng = np.random.default_rng(seed)
    paths = []
    for index in range(number):
        path = folder / ("cat", "dog")[2 * index // number] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (70 + index % 5, 80, 3)
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def hand_on(folder: Path, build: Callable[..., SwinEncoder], **changes: int) -> SwinEncoder:
    """Writes a backbone of random weights, and returns its encoder."""
    encoder = build(**changes)
    save_backbone(folder, encoder, mean=MEAN, std=STD, card="")
    return encoder

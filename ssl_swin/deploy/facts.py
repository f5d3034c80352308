"""What a file says of its network: how images are prepared, and what the answers mean."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ssl_swin import __version__
from ssl_swin.deploy.network import PIXEL_SCORES, Network, PixelType
from ssl_swin.errors import UserError
from ssl_swin.probing.feature_store import weights_fingerprint

KEY = "ssl_swin"  # of the JSON in a file's metadata
VERSION = 1


@dataclass(frozen=True)
class FileFacts:
    """What is needed of the facts to put images through a file.

    Attributes:
        in_chans: Number of channels of the images.
        img_size_px: Their height and width.
        dtype: Of their pixels, uint8 or float32.
        crop_ratio: Side of the centre crop over the shorter side of an image.
        mean: Normalisation inside, per channel.
        std: Normalisation inside, per channel.
        outputs: Names of what the file gives.
        classes: Names by score; empty without scores.
        temperature: That scores are divided by for calibrated probabilities.
    """

    in_chans: int
    img_size_px: tuple[int, int]
    dtype: str
    crop_ratio: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    outputs: tuple[str, ...]
    classes: tuple[str, ...]
    temperature: float


def read_facts(told: Mapping[str, Any]) -> FileFacts:
    """Read what `facts_of` wrote.

    Args:
        told: By a file of itself.

    Raises:
        UserError: If a later version wrote it.
        LookupError, TypeError, ValueError: If it is something else.
    """
    if told["format"] > VERSION:
        raise UserError(f"it was written by ssl_swin {told['ssl_swin']}, and this is {__version__}")
    pixels, inside = told["input"], told["normalisation_inside"]
    facts = FileFacts(
        in_chans=int(pixels["channels"]),
        img_size_px=(int(pixels["height_px"]), int(pixels["width_px"])),
        dtype=str(pixels["dtype"]),
        crop_ratio=float(told["preparation"]["crop_ratio"]),
        mean=tuple(map(float, inside["mean"])),
        std=tuple(map(float, inside["std"])),
        outputs=tuple(map(str, told["outputs"])),
        classes=tuple(map(str, told["classes"])),
        temperature=float(told["temperature"]),
    )
    if facts.dtype not in ("uint8", "float32"):
        raise ValueError(f"pixels of {facts.dtype}")
    if not (0 < facts.crop_ratio <= 1 and 0 < facts.temperature < math.inf):
        raise ValueError(f"crop ratio {facts.crop_ratio}, temperature {facts.temperature}")
    return facts


def facts_of(network: Network, dtype: PixelType) -> dict[str, Any]:
    """Return the facts, as JSON takes them.

    Args:
        network: The network.
        dtype: Of its pixels.
    """
    encoder = network.encoder
    height_px, width_px = network.img_size_px
    is_whole = network.outputs == PIXEL_SCORES
    values = "levels from 0 to 255" if dtype == "uint8" else "as decoded, not normalised"
    return {
        "format": VERSION,
        "ssl_swin": __version__,
        "torch": torch.__version__,
        "architecture": encoder.architecture,
        "weights": weights_fingerprint(network.module.model),
        "input": {
            "name": "pixels",
            "dtype": dtype,
            "layout": "NCHW",
            "channels": encoder.in_chans,
            "height_px": height_px,
            "width_px": width_px,
            "values": values,
        },
        "preparation": {
            "shorter_side_px": int(min(height_px, width_px) / network.crop_ratio),
            "interpolation": "bilinear, antialiased" if is_whole else "bicubic, antialiased",
            "crop": "none" if is_whole else "centre",
            "crop_ratio": network.crop_ratio,
        },
        "normalisation_inside": {"mean": [*network.mean], "std": [*network.std]},
        "outputs": [*network.output_names],
        "classes": [*network.classes],
        "temperature": network.temperature,
    }

"""What a file says of its network: how images are prepared, and what the answers mean."""

from typing import Any

import torch

from ssl_swin import __version__
from ssl_swin.deploy.network import Network, PixelType
from ssl_swin.probing.feature_store import weights_fingerprint

KEY = "ssl_swin"  # of the JSON in a file's metadata
VERSION = 1


def facts_of(network: Network, dtype: PixelType) -> dict[str, Any]:
    """Return the facts, as JSON takes them.

    Args:
        network: The network.
        dtype: Of its pixels.
    """
    encoder = network.encoder
    height_px, width_px = encoder.img_size_px
    values = "levels from 0 to 255" if dtype == "uint8" else "as decoded, not normalised"
    return {
        "format": VERSION,
        "ssl_swin": __version__,
        "torch": torch.__version__,
        "architecture": encoder.architecture,
        "weights": weights_fingerprint(encoder.model),
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
            "interpolation": "bicubic, antialiased",
            "crop": "centre",
            "crop_ratio": network.crop_ratio,
        },
        "normalisation_inside": {"mean": [*network.mean], "std": [*network.std]},
        "outputs": [*network.output_names],
        "classes": [*network.classes],
        "temperature": network.temperature,
    }

"""Backbone folders for the tests of formats."""

from pathlib import Path
from typing import Any

import torch

from ssl_swin.encoders.encoder import Encoder
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.weights.formats.importing import ImportedBackbone, save_import

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)
SAME_WINDOWS: dict[str, Any] = {"img_size_px": 128, "window_size": 4}  # 4 tokens in all stages


def saved(encoder: Encoder, folder: Path, *, with_head: bool = True) -> Path:
    """Writes a backbone folder, with a disturbed mask token and pixel head beside it."""
    torch.manual_seed(1)
    model = SimMIM(encoder)
    torch.nn.init.normal_(model.decoder[0].bias)
    channels = encoder.in_chans
    mean, std = (MEAN * channels)[:channels], (STD * channels)[:channels]
    backbone = ImportedBackbone(encoder, mean, std, model if with_head else None)
    save_import(folder, backbone, card="of a test")
    return folder

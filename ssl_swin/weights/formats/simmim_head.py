"""The mask token and pixel head of SimMIM, in a file beside a backbone."""

from pathlib import Path

import safetensors.torch
from torch import Tensor

FILE = "simmim.safetensors"  # as `SimMIM.extra_weights` names it
PARTS = ("mask_token", "decoder.0.weight", "decoder.0.bias")


def load_simmim_head(folder: Path) -> dict[str, Tensor]:
    """Read it; empty where the folder has none."""
    path = folder / FILE
    return safetensors.torch.load_file(path) if path.is_file() else {}

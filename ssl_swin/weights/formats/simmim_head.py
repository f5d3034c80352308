"""The mask token and pixel head of SimMIM, in a file beside a backbone."""

from pathlib import Path

import safetensors.torch
from torch import Tensor

from ssl_swin.files import write_atomically
from ssl_swin.objectives.simmim import SimMIM

FILE = "simmim.safetensors"
PARTS = ("mask_token", "decoder.0.weight", "decoder.0.bias")


def save_simmim_head(folder: Path, model: SimMIM) -> None:
    """Writes what a backbone folder leaves out of a SimMIM model."""
    state = model.state_dict()
    tensors = {name: state[name].detach().cpu().contiguous() for name in PARTS}
    write_atomically(folder / FILE, safetensors.torch.save(tensors, metadata={"format": "pt"}))


def load_simmim_head(folder: Path) -> dict[str, Tensor]:
    """Reads it; empty where the folder has none."""
    path = folder / FILE
    return safetensors.torch.load_file(path) if path.is_file() else {}

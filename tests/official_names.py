"""The names and files of the original SimMIM, for tests that compare with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_swin.weights.formats.key_maps import Rule, flip, to_theirs
from ssl_swin.weights.formats.official_format import RULES
from ssl_swin.weights.formats.tables import is_table

TINY_MODELS = Path(__file__).parent / "golden"


def to_timm_name(official: str) -> str | None:
    """Returns timm's name of a tensor of the original Swin; None for a table that timm rebuilds."""
    if is_table(official):
        return None
    return _renamed(flip(RULES), official)


def to_official_name(timm_name: str) -> str:
    """Returns the original's name of a tensor of timm's Swin."""
    return _renamed(RULES, timm_name)


def to_simmim_name(official: str) -> str | None:
    """Returns the name in our `SimMIM` of a tensor of the original's; None for a table."""
    if official == "encoder.mask_token":
        return "mask_token"
    if not official.startswith("encoder."):
        return official
    timm_name = to_timm_name(official.removeprefix("encoder."))
    return timm_name and f"encoder.model.{timm_name}"


def to_official_simmim_name(name: str) -> str:
    """Returns the original's name of a tensor of our `SimMIM`."""
    if name == "mask_token":
        return "encoder.mask_token"
    if not name.startswith("encoder.model."):
        return name
    return f"encoder.{to_official_name(name.removeprefix('encoder.model.'))}"


def tiny_state(version: int) -> dict[str, Tensor]:
    """Returns the parameters of the original's own small model: 64 px, windows 4, 4, 4 and 2."""
    arrays = np.load(TINY_MODELS / f"swin_v{version}.npz")
    return {
        key.removeprefix("param/"): torch.from_numpy(arrays[key])
        for key in arrays
        if key.startswith("param/")
    }


def save_official(
    path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
) -> Path:
    """Writes a checkpoint as the original's training script does; returns its path."""
    content: dict[str, Any] = {"model": dict(state), "epoch": 99, "optimizer": {"state": {}}}
    torch.save(content if config is None else content | {"config": config}, path)
    return path


def _renamed(rules: Sequence[Rule], name: str) -> str:
    """Returns the name that rules turn a name into, the same if none has it."""
    (renamed,) = to_theirs(rules, {name: torch.empty(0)}).state or (name,)
    return renamed

"""Folders that a task is handed off in, where timm does not load them: found, and read whole."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.weights.backbone import CONFIG, WEIGHTS, read_safetensors


def find_folder(given: Path, name: str) -> Path:
    """Return the folder of a task: the one that is given, or its sub-folder.

    Args:
        given: A hand-off folder, or a run's folder that holds one.
        name: Name of the hand-off folder, as "segmenter".

    Raises:
        UserError: If neither holds a configuration and weights.
    """
    for folder in (given, given / name):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    raise UserError(
        f"{given} is no {name}: neither it nor its sub-folder {name}/ holds {CONFIG} and "
        f"{WEIGHTS}; give the folder of a finished run of {_SCRIPTS[name]}"
    )


def is_of_task(folder: Path, title: str) -> bool:
    """Return whether a folder holds what a task with this title hands off."""
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("task") == title


def load_exactly(own: Mapping[str, Tensor], path: Path) -> None:
    """Read a file of weights into tensors that have the same names and shapes.

    Args:
        own: Tensors by name, which are written to.
        path: The file.

    Raises:
        UserError: If names or shapes differ.
    """
    given = read_safetensors(path)
    wrong = sorted(own.keys() ^ given.keys())
    wrong += [name for name in own.keys() & given.keys() if own[name].shape != given[name].shape]
    if wrong:
        shown = ", ".join(wrong[:5])
        raise UserError(f"{path} does not fit the {CONFIG} beside it: {shown} differ")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])


_SCRIPTS = {"segmenter": "segment.py", "detector": "detect.py"}

"""Folders that a task is handed off in, where timm does not load them: found, and read whole."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_swin.encoders.build import build_encoder
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.errors import UserError
from ssl_swin.weights.backbone import (
    CONFIG,
    NOT_TOLD,
    WEIGHTS,
    encoder_args,
    preprocessing_of,
    read_safetensors,
)


class HandOff(NamedTuple):
    """What the folder of a task tells of it, whichever task it is."""

    config: dict[str, Any]  # all that config.json says
    encoder: Encoder  # without its weights
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


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


@contextmanager
def describing(folder: Path, kind: str) -> Iterator[None]:
    """Name the configuration of a folder where something that it tells cannot be.

    Args:
        folder: The folder.
        kind: What it holds, as "segmenter".

    Raises:
        UserError: If what is done in this context fails at that.
    """
    try:
        yield
    except NOT_TOLD as error:
        raise UserError(f"{folder / CONFIG} does not describe a {kind}: {error!r}") from error


def read_hand_off(folder: Path) -> HandOff:
    """Return what the folder of a task tells; to be called in `describing`.

    Args:
        folder: The folder.
    """
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    encoder = build_encoder(
        config["architecture"],
        encoder_args(config),
        drop_path_rate=0.0,
        grad_checkpointing=False,
    )
    classes = tuple(map(str, list(config["label_names"])))
    mean, std, _ = preprocessing_of(config, encoder.in_chans)
    return HandOff(config, encoder, classes, mean, std)


def check_image(pixels: Tensor, channels: int, kind: str) -> None:
    """Refuse what is not one image of the channels that a task takes.

    Args:
        pixels: Raw pixels.
        channels: How many it takes.
        kind: What takes them, as "segmenter".

    Raises:
        UserError: With the shape.
    """
    if pixels.ndim != 3 or pixels.shape[0] != channels:
        raise UserError(
            f"the {kind} takes an image of {channels} channels, (C, H, W), got "
            f"{tuple(pixels.shape)}"
        )


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

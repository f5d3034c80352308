"""Files of weights, whoever wrote them: the tensors, and the configuration beside them."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.safe_pickle import load_checkpoint

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_CONFIGS = ("preprocessor_config.json", "config.json")
_KEYS = ("model", "state_dict", "module")
_WRAPPER = "module."  # what DistributedDataParallel puts before every name


@dataclass(frozen=True)
class WeightFile:
    """A file that was read.

    Attributes:
        path: File with the weights.
        state: Every tensor.
        config: What the file says beside them, or what lies beside it as JSON.
    """

    path: Path
    state: dict[str, Tensor]
    config: dict[str, Any]


def read_weights(path: str | os.PathLike[str]) -> WeightFile:
    """Reads a file of `torch.save` or safetensors, or a folder of timm's or Hugging Face's layout.

    Nothing that a file holds is executed.

    Raises:
        UserError: If there is none, it is damaged, it holds code, or it holds no tensors.
    """
    file = _find(Path(path))
    if file.suffix == ".safetensors":
        return WeightFile(file, _read_safetensors(file), _read_configs(file))
    checkpoint = load_checkpoint(file)
    content = next((checkpoint[key] for key in _KEYS if key in checkpoint), checkpoint)
    if not isinstance(content, Mapping) or not content or not _all_tensors(content):
        raise UserError(f"{file} holds no dictionary of tensors, neither itself nor under 'model'")
    config = checkpoint.get("config")
    beside = _read_configs(file)
    return WeightFile(
        file, _unwrap(content), dict(config) if isinstance(config, Mapping) else beside
    )


def _find(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"there is no file {path}")
        return path
    for name in _WEIGHTS:
        if (path / name).is_file():
            return path / name
    raise UserError(f"the folder {path} holds neither {' nor '.join(_WEIGHTS)}")


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return _unwrap(safetensors.torch.load_file(file))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is truncated, damaged, or no safetensors file: {error}") from error


def _read_configs(file: Path) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for path in (file.with_name(name) for name in _CONFIGS if file.name in _WEIGHTS):
        if not path.is_file():
            continue
        try:
            config |= json.loads(path.read_text())
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is not a JSON configuration: {error}") from error
    return config


def _all_tensors(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(tensor, Tensor) for tensor in content.values())


def _unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if all(name.startswith(_WRAPPER) for name in state):
        return {name.removeprefix(_WRAPPER): tensor for name, tensor in state.items()}
    return dict(state)

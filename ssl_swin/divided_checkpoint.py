"""Checkpoints that are folders: each process has written its part of the tensors.

The parts are safetensors files as torch.distributed.checkpoint writes them, with the place of each
piece in their header. What is no divided tensor lies in `meta.pt`, with the names and sums of the
parts. No file is a pickle that could call anything.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.safe_pickle import load_checkpoint

META = "meta.pt"  # of a checkpoint that is a folder
DIVIDED, PARTS = "divided", "parts"  # keys there: what is divided, and the sums of the files
PLACES = "DCP_SHARDING_INFO"  # in the header of a part, as torch.distributed.checkpoint names it
Key = str | int


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the whole content of a checkpoint, on the CPU; nothing that it holds is executed.

    Args:
        path: A file, or the folder of a divided checkpoint.

    Raises:
        UserError: If it is missing, damaged or incomplete, or holds an object that is not data.
    """
    folder = Path(path)
    if not folder.is_dir():
        return load_checkpoint(folder)
    content = load_checkpoint(folder / META)
    try:
        divided, parts = content.pop(DIVIDED), content.pop(PARTS)
        for name, expected in parts.items():
            _check(folder / os.path.basename(name), expected)
        wholes = _assembled([folder / os.path.basename(name) for name in parts], divided)
        for name, facts in divided.items():
            _put(content, facts["path"], wholes[name])
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError,
            SafetensorError) as error:  # fmt: skip
        raise UserError(f"{folder} is damaged: its parts do not fit together") from error
    return content


def is_divided(path: Path) -> bool:
    """Return whether a path is the folder of a divided checkpoint."""
    return (path / META).is_file()


def take_out(content: Mapping[str, Any], kind: type[Tensor]) -> tuple[Any, dict[str, Any]]:
    """Split a nested state into what stays in `meta.pt`, and the tensors of a kind by name.

    Args:
        content: Mappings and lists of anything; left as it is.
        kind: The type of the tensors to take out.

    Returns:
        The rest, with None where they were, and for each its path in the state and the tensor.
    """
    found: dict[str, Any] = {}

    def without(part: Any, path: tuple[Key, ...]) -> Any:
        if isinstance(part, kind):
            found[".".join(map(str, path))] = (list(path), part)
            return None
        if not _holds(part, kind):
            return part
        if isinstance(part, Mapping):
            return {key: without(value, (*path, key)) for key, value in part.items()}
        return [without(value, (*path, index)) for index, value in enumerate(part)]

    rest = {key: without(value, (key,)) for key, value in content.items()}
    return rest, found


def pieces_of(part: Path) -> Iterator[tuple[str, tuple[int, ...], Tensor]]:
    """Yield the tensors of one part: name, place of its first value in the whole, values.

    Args:
        part: One of the safetensors files.
    """
    with safe_open(part, framework="pt") as file:
        places = json.loads(file.metadata()[PLACES])
        for name in file.keys():
            yield name, tuple(places[name]["saved_offsets"]), file.get_tensor(name)


def sum_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check(part: Path, expected: str) -> None:
    if not part.is_file():
        raise UserError(f"{part.parent} is incomplete: {part.name} is missing")
    if sum_of(part) != expected:
        raise UserError(f"{part} is damaged: its bytes are not those that were written")


def _assembled(parts: list[Path], divided: Mapping[str, Any]) -> dict[str, Tensor]:
    wholes = {
        name: torch.empty(facts["shape"], dtype=facts["dtype"]) for name, facts in divided.items()
    }
    left = {name: whole.numel() for name, whole in wholes.items()}
    for part in parts:
        for name, place, piece in pieces_of(part):
            at = tuple(slice(a, a + n) for a, n in zip(place, piece.shape, strict=True))
            wholes[name][at].copy_(piece) if piece.numel() else None
            left[name] -= piece.numel()
    if any(left.values()):
        raise ValueError("pieces are missing")
    return wholes


def _put(content: Any, path: list[Key], value: Tensor) -> None:
    *outer, last = path
    for key in outer:
        content = content[key]
    content[last] = value


def _holds(part: Any, kind: type[Tensor]) -> bool:
    if isinstance(part, Mapping):
        return any(_holds(value, kind) for value in part.values())
    if isinstance(part, list | tuple):
        return any(_holds(value, kind) for value in part)
    return isinstance(part, kind)

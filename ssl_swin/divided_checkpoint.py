"""Checkpoints that are folders: each process has written its part of the tensors.

The parts are safetensors files as torch.distributed.checkpoint writes them, with the place of each
piece in their header. What is no divided tensor lies in `meta.pt`, with the names and sums of the
parts. No file is a pickle that could call anything.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.safe_pickle import load_checkpoint

META = "meta.pt"  # of a checkpoint that is a folder
DIVIDED, PARTS = "divided", "parts"  # keys there: what is divided, and the sums of the files
PLACES = "DCP_SHARDING_INFO"  # in the header of a part, as torch.distributed.checkpoint names it
DTYPES = {  # by their names in safetensors
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
Key = str | int


class Piece(NamedTuple):
    """Where a piece of a divided tensor lies."""

    part: Path
    start: tuple[int, ...]  # of its first value in the whole
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Scattered:
    """A tensor whose pieces lie in the parts of a checkpoint, and of which nothing is in memory."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    pieces: tuple[Piece, ...]

    def whole(self) -> Tensor:
        """Read all of it."""
        return self.cut((0,) * len(self.shape), self.shape)

    def cut(self, start: Sequence[int], shape: Sequence[int]) -> Tensor:
        """Read a block of it, from those parts that hold some of that.

        Args:
            start: Of its first value in the whole.
            shape: Of the block.

        Raises:
            ValueError: If some of it lies nowhere.
        """
        block = torch.empty(tuple(shape), dtype=self.dtype)
        left = block.numel()
        for piece in self.pieces:
            edges = [
                (max(a, b), min(a + n, b + m))
                for a, n, b, m in zip(start, shape, piece.start, piece.shape, strict=True)
            ]
            if left and all(first < last for first, last in edges):
                there = tuple(
                    slice(x - a, y - a) for (x, y), a in zip(edges, piece.start, strict=True)
                )
                here = tuple(slice(x - a, y - a) for (x, y), a in zip(edges, start, strict=True))
                with safe_open(piece.part, framework="pt") as file:
                    values = (
                        file.get_slice(self.name)[there] if there else file.get_tensor(self.name)
                    )
                block[here].copy_(values)
                left -= values.numel()
        if left:
            raise ValueError(f"pieces of {self.name} are missing")
        return block


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the whole content of a checkpoint, on the CPU; nothing that it holds is executed.

    Args:
        path: A file, or the folder of a divided checkpoint.

    Raises:
        UserError: If it is missing, damaged or incomplete, or holds an object that is not data.
    """
    return _opened(Path(path), Scattered.whole)


def open_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the same, with divided tensors as `Scattered`, for who needs one or a part at a time.

    Every byte of the parts is checked, and all pieces are there; the files must stay.

    Args:
        path: A file, or the folder of a divided checkpoint.

    Raises:
        UserError: If it is missing, damaged or incomplete, or holds an object that is not data.
    """
    return _opened(Path(path), lambda scattered: scattered)


def _opened(folder: Path, taken: Callable[[Scattered], Any]) -> dict[str, Any]:
    if not folder.is_dir():
        return load_checkpoint(folder)
    content = load_checkpoint(folder / META)
    try:
        divided, parts = content.pop(DIVIDED), content.pop(PARTS)
        for name, expected in parts.items():
            _check(folder / os.path.basename(name), expected)
        found = _found([folder / os.path.basename(name) for name in parts], divided)
        for name, facts in divided.items():
            _put(content, facts["path"], taken(found[name]))
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


def sum_of(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check(part: Path, expected: str) -> None:
    if not part.is_file():
        raise UserError(f"{part.parent} is incomplete: {part.name} is missing")
    if sum_of(part) != expected:
        raise UserError(f"{part} is damaged: its bytes are not those that were written")


def _found(parts: list[Path], divided: Mapping[str, Any]) -> dict[str, Scattered]:
    """Return where the pieces of each tensor lie, all of which have to be there."""
    pieces: dict[str, list[Piece]] = {name: [] for name in divided}
    for part in parts:
        with safe_open(part, framework="pt") as file:
            places = json.loads(file.metadata()[PLACES])
            for name in file.keys():
                shape = tuple(file.get_slice(name).get_shape())
                pieces[name].append(Piece(part, tuple(places[name]["saved_offsets"]), shape))
    for name, facts in divided.items():
        if sum(math.prod(piece.shape) for piece in pieces[name]) != math.prod(facts["shape"]):
            raise ValueError("pieces are missing")
    return {
        name: Scattered(name, tuple(facts["shape"]), facts["dtype"], tuple(pieces[name]))
        for name, facts in divided.items()
    }


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

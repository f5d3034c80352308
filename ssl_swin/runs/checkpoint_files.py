"""What a checkpoint on disk is: whole or damaged, of which run and step, healthy or not."""

import hashlib
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_swin.divided_checkpoint import open_state
from ssl_swin.errors import UserError
from ssl_swin.runs.finite import in_short, non_finite
from ssl_swin.safe_pickle import load_checkpoint

RUN = "run"  # the key in a checkpoint of what it says of its run
OF_A_STATE = ("state_dict", "loops", "optimizer_states", "global_step")
CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint says of itself.

    Attributes:
        step: Number of optimiser steps that were made.
        run: Identity of its run; empty in checkpoints before 0.2.0.
        config: The resolved configuration of its run; None in checkpoints before 0.2.0.
        bad_tensors: Names of tensors that hold NaN or infinity.
    """

    step: int
    run: str
    config: dict[str, Any] | None
    bad_tensors: tuple[str, ...] = ()

    @property
    def problem(self) -> str:
        """Return why training cannot go on from it, as a predicate; nothing if it can."""
        if not self.bad_tensors:
            return ""
        return f"holds weights that are not finite ({in_short(self.bad_tensors)})"


def read_facts(path: Path) -> CheckpointFacts:
    """Read a checkpoint through: every byte of its content is checked, and every number.

    Args:
        path: A file, or the folder of a sharded checkpoint.

    Raises:
        UserError: If it is damaged, or no state of a training.
    """
    if path.is_dir():
        return _facts_of(path, open_state(path))
    return _facts_of(path, _load(path))


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or of all files of a folder with their names.

    Args:
        path: A checkpoint.
    """
    total = hashlib.sha256()
    for file in _files(path):
        if path.is_dir():
            total.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while chunk := opened.read(CHUNK_BYTES):
                total.update(chunk)
    return total.hexdigest()


def num_bytes(path: Path) -> int:
    """Return the size of a file, or of all files of a folder.

    Args:
        path: A checkpoint.
    """
    return sum(file.stat().st_size for file in _files(path))


def _files(path: Path) -> Iterable[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def _load(file: Path) -> dict[str, Any]:
    if file.is_file() and zipfile.is_zipfile(file):
        _check_records(file)
        return load_checkpoint(file, mmap=True)
    return load_checkpoint(file)


def _check_records(file: Path) -> None:
    """Compare each record of a zip archive with the sum that stands beside it."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except PermissionError as error:
        raise UserError(f"no permission to read {file}") from error
    except Exception as error:  # a damaged archive can fail as anything
        raise UserError(f"{file} is truncated or damaged") from error
    if damaged is not None:
        raise UserError(f"{file} is damaged: {os.path.basename(damaged)} in it has changed")


def _facts_of(path: Path, checkpoint: Mapping[str, Any]) -> CheckpointFacts:
    missing = [key for key in OF_A_STATE if key not in checkpoint]
    step = checkpoint.get("global_step")
    if missing or not isinstance(step, int):
        raise UserError(f"{path} is not the state of a training: it lacks {', '.join(missing)}")
    told = checkpoint.get(RUN)
    run = told if isinstance(told, Mapping) else {}
    config = run.get("config")
    return CheckpointFacts(
        step=step,
        run=str(run.get("id", "")),
        config=dict(config) if isinstance(config, Mapping) else None,
        bad_tensors=tuple(non_finite(checkpoint)),
    )

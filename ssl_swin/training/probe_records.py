"""What the probes of a run keep in its folder: the first network's features, and what they took.

What they took is a time, which is not the same in two runs: in a checkpoint it would make runs
differ that are equal to the bit.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ssl_swin.files import atomic_path, write_atomically
from ssl_swin.training.probed_features import ProbedImages

DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    BadZipFile,
    zlib.error,
)
INITIAL, STATE = "initial_features.npz", "state.json"
NAMES = "names"


def write_initial(folder: Path, images: ProbedImages) -> None:
    """Write features to `initial_features.npz`.

    Args:
        folder: Where to.
        images: Of the untrained network.
    """
    arrays: dict[str, Any] = {NAMES: np.array(images.names)}
    arrays |= {f"stage{stage}": rows.numpy() for stage, rows in images.by_stage.items()}
    with atomic_path(folder / INITIAL) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_initial(folder: Path, names: list[str]) -> dict[int, Tensor]:
    """Return the features by stage; none if they are not there, damaged, or of other images.

    Args:
        folder: Where they are.
        names: Names of the images, in order.
    """
    path = folder / INITIAL
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if arrays[NAMES].tolist() != names:
                return {}
            stages = {name.removeprefix("stage"): name for name in arrays.files if name != NAMES}
            return {int(at): torch.from_numpy(arrays[name]) for at, name in stages.items()}
    except DAMAGED:
        return {}


def write_state(folder: Path, budget: Mapping[str, float], num_batches: Mapping[str, int]) -> None:
    """Write down what the probes took so far, and of how many batches.

    Args:
        folder: Where to.
        budget: State of the time budget.
        num_batches: Of a device, by split.
    """
    state = {"budget": dict(budget), "num_batches": dict(num_batches)}
    write_atomically(folder / STATE, json.dumps(state, indent=2) + "\n")


def read_state(folder: Path) -> dict[str, Any]:
    """Return what `write_state` wrote; nothing if it is not there, or damaged."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        budget = {str(name): float(value) for name, value in state["budget"].items()}
        num_batches = {str(name): int(value) for name, value in state["num_batches"].items()}
    except DAMAGED:
        return {}
    return {"budget": budget, "num_batches": num_batches} if len(budget) == 3 else {}

"""Whether the disk has room for the checkpoints that a run keeps."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import nn

from ssl_swin.errors import UserError
from ssl_swin.optim.schedules import RunLength
from ssl_swin.quoting import shell_path

COPIES_OF_ADAM = 3  # in a checkpoint: the weights and two moments of each


def checkpoint_bytes(model: nn.Module, *, has_average: bool) -> int:
    """Estimate the size of a checkpoint before a step is made: what AdamW will keep.

    Args:
        model: What is trained.
        has_average: Whether a moving average of the weights is saved too.
    """
    weights = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    rest = sum(t.numel() * t.element_size() for t in model.state_dict().values()) - weights
    return int((COPIES_OF_ADAM + has_average) * weights + rest)


def num_kept(checkpoints: Sequence[Checkpoint], length: RunLength, max_steps: int) -> int:
    """Return how many files lie in the run's folder at its end.

    Args:
        checkpoints: What writes them; that which only writes a run's last one anew adds none.
        length: Length of the run.
        max_steps: Optimiser steps after which it ends earlier; -1 for none.
    """
    num_steps = length.num_epochs * length.steps_per_epoch
    num_steps = num_steps if max_steps < 0 else min(num_steps, max_steps)
    regular = [each for each in checkpoints if isinstance(each, ModelCheckpoint)]
    return sum(_kept(checkpoint, num_steps, length.steps_per_epoch) for checkpoint in regular)


def check_space(folder: Path, *, number: int, size_bytes: int) -> None:
    """Refuse a run whose checkpoints its disk cannot hold, with one more that is being written.

    What the run's folder holds already is counted as room, since it is replaced.

    Args:
        folder: The run's; it need not exist.
        number: Checkpoints at its end.
        size_bytes: Of each.

    Raises:
        UserError: If there is less room.
    """
    needed = (number + 1) * size_bytes
    room = free_bytes(folder) + sum(
        path.stat().st_size for path in folder.glob("checkpoints/*") if path.is_file()
    )
    if needed > room:
        raise UserError(
            f"{number} checkpoints of {in_bytes(size_bytes)} and one that is being written need "
            f"{in_bytes(needed)}, and the disk of {shell_path(folder)} has {in_bytes(room)}: free "
            "space, set run_dir= to another disk, or keep fewer, as "
            "callbacks.milestones.every_n_epochs=1000"
        )


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that a folder lies on, or will lie on."""
    there = next(each for each in (folder.resolve(), *folder.resolve().parents) if each.exists())
    return shutil.disk_usage(there).free


def in_bytes(count: float) -> str:
    """Write a number of bytes with three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB" if count < 999.5 else f"{count:,.0f} TB"


def _kept(checkpoint: ModelCheckpoint, num_steps: int, steps_per_epoch: int) -> int:
    every_n_epochs = getattr(checkpoint, "_every_n_epochs", 0) or 0
    every_n_steps = getattr(checkpoint, "_every_n_train_steps", 0) or 0
    if every_n_steps:
        written = num_steps // every_n_steps
    elif every_n_epochs:
        written = math.ceil(num_steps / steps_per_epoch) // every_n_epochs
    else:
        written = 1
    return written if checkpoint.save_top_k < 0 else min(written, checkpoint.save_top_k)

"""Whether the disk has room for the checkpoints that a run keeps."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor, nn

from ssl_swin.errors import UserError
from ssl_swin.optim.schedules import RunLength
from ssl_swin.quoting import shell_path
from ssl_swin.runs.retention import Retention
from ssl_swin.training.checkpointing.schedule import StepCheckpoint

COPIES_OF_ADAM = 3  # in a checkpoint: the weights and two moments of each
BYTES_PER_TENSOR = 370  # of a checkpoint, besides the numbers: headers, names, what fills up


def checkpoint_bytes(model: nn.Module, *, has_average: bool) -> int:
    """Estimate the size of a checkpoint before a step is made: what AdamW will keep.

    Args:
        model: What is trained.
        has_average: Whether a moving average of the weights is saved too.
    """
    trained = [_of_tensor(p) for p in model.parameters() if p.requires_grad]
    rest = sum(map(_of_tensor, model.state_dict().values())) - sum(trained)
    return int((COPIES_OF_ADAM + has_average) * sum(trained) + rest)


def _of_tensor(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size() + BYTES_PER_TENSOR


def num_kept(
    checkpoints: Sequence[Checkpoint],
    length: RunLength,
    max_steps: int,
    duration_s: float = math.inf,
) -> int:
    """Return how many files lie in the run's folder at its end.

    Args:
        checkpoints: What writes them.
        length: Length of the run.
        max_steps: Optimiser steps after which it ends earlier; -1 for none.
        duration_s: How long that takes, by which a state that is kept for its age is there or not.
    """
    num_steps = length.num_epochs * length.steps_per_epoch
    num_steps = num_steps if max_steps < 0 else min(num_steps, max_steps)
    number = 0
    for each in checkpoints:
        if isinstance(each, ModelCheckpoint):
            written = _written(each, num_steps, length.steps_per_epoch)
            own = written if each.save_top_k < 0 else min(written, each.save_top_k)
            number += own + min(written - own, _num_previous(each, duration_s))
    return number


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
        path.stat().st_size for path in folder.glob("checkpoints/**/*") if path.is_file()
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


def _written(checkpoint: ModelCheckpoint, num_steps: int, steps_per_epoch: int) -> int:
    """Return how often a file is written."""
    every_n_epochs = getattr(checkpoint, "_every_n_epochs", 0) or 0
    every_n_steps = getattr(checkpoint, "_every_n_train_steps", 0) or 0
    if every_n_steps:
        return num_steps // every_n_steps
    return math.ceil(num_steps / steps_per_epoch) // every_n_epochs if every_n_epochs else 1


def _num_previous(checkpoint: ModelCheckpoint, duration_s: float) -> int:
    """Return how many states are kept that the file held before; see `Retention.superseded`."""
    kept = checkpoint.retention if isinstance(checkpoint, StepCheckpoint) else Retention(0, None)
    if kept.min_age_h is None:
        return kept.num_previous
    return kept.num_previous + (2 if duration_s > 3600 * kept.min_age_h else 1)

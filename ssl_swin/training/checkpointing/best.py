"""The best checkpoints of a run, found damaged before anything trusts them."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from ssl_swin.errors import UserError
from ssl_swin.files import set_aside
from ssl_swin.training.checkpointing.io import AtomicCheckpointIO
from ssl_swin.training.sharding import load_whole

say = rank_zero_only(print)


def forget_damaged(trainer: Trainer, checkpoint: ModelCheckpoint) -> bool:
    """Sets aside best checkpoints that are damaged, gone or another run's; the next best counts.

    All processes have to call it.

    Args:
        trainer: The trainer of the run.
        checkpoint: Keeps the best by a metric.

    Returns:
        Whether there were any.
    """
    known = list(checkpoint.best_k_models) or [checkpoint.best_model_path]
    paths = [path for path in known if path]
    found = [_problem(trainer, _from_here(path)) for path in paths if trainer.is_global_zero]
    problems = trainer.strategy.broadcast(found)
    bad = {path: problem for path, problem in zip(paths, problems, strict=True) if problem}
    for path, problem in bad.items():
        say(f"note: {problem}{_aside(trainer, Path(path))}: it no longer counts as the best")
    if bad:
        _forget(checkpoint, bad)
    return bool(bad)


def load_best(trainer: Trainer, module: LightningModule, last: Path) -> Path | None:
    """Loads the weights of the best epoch after training, or leaves those of the last step.

    All processes have to call it.

    Args:
        trainer: The trainer of the run.
        module: What was trained.
        last: The run's last checkpoint, whose weights are the averaged ones if there are any.

    Returns:
        The best checkpoint; None if none is whole.
    """
    checkpoint = trainer.checkpoint_callback
    assert isinstance(checkpoint, ModelCheckpoint)
    forget_damaged(trainer, checkpoint)
    if checkpoint.best_model_path:
        best = Path(checkpoint.best_model_path)
        load_whole(module, _loaded(trainer, best)["state_dict"])
        return best
    say("note: no checkpoint of a best epoch is left: the weights of the last step are handed over")
    with suppress(UserError):  # what is in memory is then all there is
        state = _loaded(trainer, last)
        if state["global_step"] == trainer.global_step:
            load_whole(module, state["state_dict"])
    return None


def _loaded(trainer: Trainer, path: Path) -> dict[str, Any]:
    return trainer.strategy.load_checkpoint(path, weights_only=True)


def _problem(trainer: Trainer, path: Path) -> str:
    """Returns why a checkpoint of this run is not to be used; nothing if it is whole."""
    files = trainer.strategy.checkpoint_io
    return files.problem_of(path) if isinstance(files, AtomicCheckpointIO) else ""


def _from_here(path: str) -> Path:
    """Returns a path without the working directory, which Lightning puts before it."""
    here = Path.cwd()
    return Path(path).relative_to(here) if Path(path).is_relative_to(here) else Path(path)


def _aside(trainer: Trainer, path: Path) -> str:
    if trainer.is_global_zero and os.path.lexists(path):
        with suppress(OSError):  # of a disk that takes nothing any more
            return f", now {set_aside(path).name}"
    return ""


def _forget(checkpoint: ModelCheckpoint, bad: dict[str, str]) -> None:
    left = {path: score for path, score in checkpoint.best_k_models.items() if path not in bad}
    sign = -1 if checkpoint.mode == "max" else 1
    ranked = sorted(left, key=lambda path: sign * float(left[path]))
    checkpoint.best_k_models = left
    checkpoint.best_model_path = ranked[0] if ranked else ""
    checkpoint.best_model_score = left[ranked[0]] if ranked else None
    checkpoint.kth_best_model_path = ranked[-1] if ranked else ""
    if ranked:
        checkpoint.kth_value = left[ranked[-1]]

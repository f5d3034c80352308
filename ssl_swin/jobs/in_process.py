"""The jobs as functions of Python: configuration, checks and code of the command line."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_swin.arguments import shown
from ssl_swin.errors import UserError
from ssl_swin.launch.composing import composed_for_user
from ssl_swin.launch.session import job_session
from ssl_swin.launch.threads import threads_for_this_machine
from ssl_swin.launch.user_errors import only_user_errors
from ssl_swin.stopping.stopped import RunStopped, in_words


def pretrain(overrides: Sequence[str] = (), *, config_dir: Path | None = None) -> Path:
    """Pretrain a backbone.

    Args:
        overrides: Settings as on the command line, as ["model=swin_t", "data=shards"].
        config_dir: Folder with configuration files of your own.

    Returns:
        The run's folder; `load_backbone` takes it.

    Raises:
        UserError: If a setting is wrong, naming it and the way out.
        KeyboardInterrupt: After a Ctrl-C, when the state is saved; a second one does not wait.
        RunStopped: After another signal, or after `trainer.max_time`, when the state is saved.
    """
    return _run("pretrain", overrides, config_dir)


def finetune(overrides: Sequence[str] = (), *, config_dir: Path | None = None) -> Path:
    """Fine-tune a backbone on labels; see `pretrain`."""
    return _run("finetune", overrides, config_dir)


def segment(overrides: Sequence[str] = (), *, config_dir: Path | None = None) -> Path:
    """Train semantic segmentation on images with masks; see `pretrain`.

    `load_segmenter` takes the run's folder.
    """
    return _run("segment", overrides, config_dir)


def detect(overrides: Sequence[str] = (), *, config_dir: Path | None = None) -> Path:
    """Train a detector on images with boxes; see `pretrain`.

    `load_detector` takes the run's folder.
    """
    return _run("detect", overrides, config_dir)


def linear_probe(overrides: Sequence[str] = (), *, config_dir: Path | None = None) -> Path:
    """Probe frozen features with linear heads and nearest neighbours; see `pretrain`."""
    return _run("linear_probe", overrides, config_dir)


def _run(job: str, overrides: Sequence[str], config_dir: Path | None) -> Path:
    cfg = composed_for_user(job, _settings(overrides), config_dir=config_dir)
    try:
        with (
            threads_for_this_machine(),
            only_user_errors(job, None),
            job_session(owns_process=False),
        ):
            importlib.import_module(f"ssl_swin.jobs.{job}").main(cfg)
    except RunStopped as stopped:
        print(in_words(stopped), file=sys.stderr, flush=True)
        stopped.let_others_go()
        if stopped.by_keyboard:
            raise KeyboardInterrupt from None  # where the run was is of no use
        raise
    return Path(cfg.run_dir)


def _settings(overrides: Any) -> list[str]:
    """Return overrides that are settings, and no flags of the command line.

    Raises:
        UserError: If they are something else.
    """
    is_list = isinstance(overrides, Sequence) and not isinstance(overrides, str | bytes)
    if not is_list or not all(isinstance(word, str) for word in overrides):
        raise UserError(
            'overrides must be a list of texts, as ["model=swin_t", "seed=1"], got '
            f"{shown(overrides)}"
        )
    for word in overrides:
        if word.startswith("-"):
            raise UserError(f"{word} is a flag of the command line; overrides are key=value alone")
    return list(overrides)

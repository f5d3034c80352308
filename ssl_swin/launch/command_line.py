"""How a job was started, and is started again."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = ("pretrain.py", "finetune.py", "linear_probe.py")


def command(job: str) -> str:
    """Return the command that starts a job the way in which this process was started.

    Args:
        job: Name of the job, as linear_probe.

    Returns:
        `python linear_probe.py` if a script runs, else `ssl-swin linear-probe`.
    """
    if Path(sys.argv[0]).name in SCRIPTS:
        return f"python {job}.py"
    return f"ssl-swin {job.replace('_', '-')}"


def words_to_start(job: str) -> list[str]:
    """Return the words that start a job from the working directory, as this process was started.

    Args:
        job: Name of the job, as linear_probe.

    Returns:
        As `command`, with the paths of this process's interpreter and script where they differ.
    """
    if Path(sys.argv[0]).name in SCRIPTS:
        return [_program("python", sys.executable), str(Path(sys.argv[0]).with_name(f"{job}.py"))]
    return [*words_of_ssl_swin(), job.replace("_", "-")]


def words_of_ssl_swin() -> list[str]:
    """Return the words that start `ssl-swin` from here."""
    started = sys.argv[0] if Path(sys.argv[0]).name == "ssl-swin" else "ssl-swin"
    return [_program("ssl-swin", started)]


def options_of_user_files(overrides: Sequence[str]) -> list[str]:
    """Return the options by which this process was told of configuration files of the user.

    Args:
        overrides: Hydra's own overrides of this process.
    """
    told = sys.argv[1:]
    options: list[str] = []
    for at, word in enumerate(told):
        flag, _, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            options += ["--config-dir", value or (told[at + 1] if at + 1 < len(told) else "")]
    return [*options, *(word for word in overrides if word.startswith("hydra.searchpath="))]


def _program(name: str, path: str) -> str:
    """Return a program's name where the shell finds this very program by it, else its path."""
    found = shutil.which(name)
    is_found = found is not None and os.path.exists(path) and os.path.samefile(found, path)
    return name if is_found or not os.path.exists(path) else path

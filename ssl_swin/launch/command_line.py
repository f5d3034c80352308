"""How a job was started, and is started again."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import ssl_swin
from ssl_swin.quoting import shell_line

SCRIPTS = ("pretrain.py", "finetune.py", "segment.py", "detect.py", "linear_probe.py")
MODULE = Path(ssl_swin.__file__).with_name("__main__.py")  # what `python -m ssl_swin` runs


def command(job: str) -> str:
    """Return the command that starts a job the way in which this process was started.

    Args:
        job: Name of the job, as linear_probe.

    Returns:
        `python linear_probe.py` if a script runs, else `ssl-swin linear-probe`.
    """
    if _is_script():
        return f"python {job}.py"
    return f"ssl-swin {job.replace('_', '-')}"


def words_to_start(job: str) -> list[str]:
    """Return the words that start a job from the working directory, as this process was started.

    Args:
        job: Name of the job, as linear_probe.

    Returns:
        As `command`, with the paths of this process's interpreter and script where they differ.
    """
    if _is_script():
        return [_program("python", sys.executable), str(Path(sys.argv[0]).with_name(f"{job}.py"))]
    return [*words_of_ssl_swin(), job.replace("_", "-")]


def words_of_ssl_swin() -> list[str]:
    """Return the words that start `ssl-swin` from here."""
    if Path(sys.argv[0]) == MODULE:
        return [_program("python", sys.executable), "-m", "ssl_swin"]
    started = sys.argv[0] if Path(sys.argv[0]).name == "ssl-swin" else "ssl-swin"
    return [_program("ssl-swin", started)]


def how_to_continue(job: str) -> str:
    """Return what is typed to continue the job that this process runs.

    Args:
        job: Name of the job, as linear_probe.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "the same torchrun command goes on from there"
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return "the same srun command goes on from there"
    if "RANK" in os.environ:
        return "the same commands on all processes go on from there"
    typed = sys.argv[1 if _is_script() else 2 :]
    kept = [word for word in typed if not word.lstrip("+").startswith("resume=")]
    resume = [] if len(kept) == len(typed) else ["resume=auto"]  # not from the start again
    return f"to go on: {shell_line([*words_to_start(job), *kept, *resume])}"


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


def _is_script() -> bool:
    """Return whether a script of this project runs; one of a user by that name stands alone."""
    script = Path(sys.argv[0])
    return script.name in SCRIPTS and all(script.with_name(name).is_file() for name in SCRIPTS)


def _program(name: str, path: str) -> str:
    """Return a program's name where the shell finds this very program by it, else its path."""
    found = shutil.which(name)
    is_found = found is not None and os.path.exists(path) and os.path.samefile(found, path)
    return name if is_found or not os.path.exists(path) else path

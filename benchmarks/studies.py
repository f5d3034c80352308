"""What a study is: a file of settings, and jobs that are run in its folder."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ssl_swin.errors import UserError

ROOT = Path(__file__).parents[1]


def read_study(path: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """Returns the settings of a study.

    Args:
        path: The file, in YAML.
        wanted: Keys that it must have.

    Raises:
        UserError: If the file cannot be read, or lacks one.
    """
    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(settings, dict) or not {*wanted} <= settings.keys():
        raise UserError(f"{path} is no study of this kind, which has {', '.join(wanted)}")
    return settings


def check_known(names: Sequence[str], known: Sequence[str], kind: str) -> None:
    """Refuses names that a study does not have.

    Args:
        names: What was asked for.
        known: What there is.
        kind: What they are, as "backbone".

    Raises:
        UserError: With the first of them.
    """
    for name in names:
        if name not in known:
            raise UserError(f"there is no {kind} {name}; there are: {', '.join(known)}")


def run_logged(command: Sequence[str], folder: Path, log: Path) -> None:
    """Runs Python on one thread, and adds what it prints to a file.

    Args:
        command: Its arguments.
        folder: Where it runs.
        log: The file.

    Raises:
        UserError: If it fails.
    """
    with log.open("a") as output:
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            check=False,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if ended.returncode:
        raise UserError(
            f"{command[0]} has ended with code {ended.returncode}, see the end of {log}; the same "
            "command goes on after the last row of the table"
        )

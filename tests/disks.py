"""Small disks that a test mounts, and faults that fill them at an exact moment."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faults import wrap

FILLER = "of_somebody_else"


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[Path]:
    """Mount a disk of so many bytes in memory; without the right to, the test is skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = _run("mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", folder)
    if mounted.returncode:
        pytest.skip(f"needs root to mount a small disk: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        _run("umount", "--lazy", folder)


def remount(disk: Path, how: str) -> None:
    """Mount a disk of `small_disk` again: "ro", so that it takes nothing, or "rw"."""
    _run("mount", "-o", f"remount,{how}", disk).check_returncode()


def _run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)


def fill(disk: Path) -> None:
    """Write a file, beside the run's own folder, that takes all space there is."""
    with (disk / FILLER).open("ab", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def free(disk: Path) -> None:
    """Remove that file."""
    (disk / FILLER).unlink()


@dataclass(frozen=True)
class BeforeRename:
    """Something that happens when the first file of a name is about to get it.

    Attributes:
        happens: What, as `partial(fill, disk)`.
        name: Name of the file.
    """

    happens: Callable[[], None]
    name: str

    def __call__(self) -> None:
        """Plant it."""
        done: list[bool] = []

        def around(original: Callable[..., Any]) -> Callable[..., Any]:
            def replacement(source: Any, target: Any, **options: Any) -> None:
                if Path(target).name == self.name and not done:
                    done.append(True)
                    self.happens()
                original(source, target, **options)

            return replacement

        wrap(os, "replace", around)

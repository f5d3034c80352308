"""Writing a checkpoint so that what lies on the disk is what was meant."""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ssl_swin.disk_errors import DiskError, disk_error
from ssl_swin.files import fsync
from ssl_swin.runs.checkpoint_files import checksum


class Hashing:
    """Passes what is written on to a file, and sums it up."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sum = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: bytes | memoryview) -> int:
        """Write some bytes."""
        self.sum.update(content)
        try:
            return self.file.write(content)
        except OSError as error:  # torch raises something else in the end
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Hand everything to the system."""
        self.file.flush()


def write_verified(checkpoint: dict[str, Any], path: Path) -> str:
    """Write a checkpoint, sync it, and read it back from the disk.

    Args:
        checkpoint: What to write.
        path: A temporary file, which is then given its name.

    Returns:
        The SHA-256 of the file.

    Raises:
        OSError: If the disk refuses.
        DiskError: If the disk gives back something else.
    """
    with path.open("wb") as file:
        hashing = Hashing(file)
        try:
            torch.save(checkpoint, hashing)  # type: ignore[arg-type]
        except Exception as error:
            raise (hashing.error or disk_error(error) or error) from None
    fsync(path)
    forget_cached(path)
    expected = hashing.sum.hexdigest()
    if checksum(path) != expected:
        raise DiskError(f"{path} does not hold what was written to it: check the disk")
    return expected


def forget_cached(path: Path) -> None:
    """Let the next read come from the disk and not from memory, where the system can do that."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

"""Noticing a disk that takes nothing, where a library that writes there does not say so."""

import os
import tempfile
import time
from pathlib import Path

from ssl_swin.disk_errors import DiskError

PROBE_BYTES = 1 << 16
EVERY_S = 10.0


class DiskWatch:
    """Looks from time to time whether a folder still takes a file.

    The process of Weights & Biases writes what it cannot write into its own log, and TensorBoard
    says it to a thread of its own.
    """

    def __init__(self, folder: Path | None) -> None:
        """Sets the watch up.

        Args:
            folder: Where files are written; None where none are.
        """
        self.folder = folder
        self._next_s = 0.0

    def look(self, *, at_once: bool = False) -> None:
        """Writes a file and removes it, at most once in ten seconds.

        Args:
            at_once: Whether to look whenever that was done last.

        Raises:
            DiskError: If the folder takes none.
        """
        now_s = time.monotonic()
        if self.folder is None or not (at_once or now_s >= self._next_s):
            return
        self._next_s = now_s + EVERY_S
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskError(f"cannot write to {self.folder}: {error.strerror}") from error

"""Noticing that a folder was moved or removed, which whoever writes there would make anew."""

import os
import weakref
from contextlib import suppress
from pathlib import Path

from ssl_swin.disk_errors import FolderGoneError


class Place:
    """A folder that is held open, as the number of one that is gone is given to the next."""

    def __init__(self, folder: Path) -> None:
        """Know of no folder yet.

        Args:
            folder: Its path.
        """
        self._folder = folder
        self._held: int | None = None

    def note(self) -> None:
        """Remember the folder that is there now, until this object is gone."""
        if self._held is None and hasattr(os, "O_DIRECTORY"):
            self._held = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            weakref.finalize(self, os.close, self._held)

    def check(self) -> None:
        """Compare it with the one that was noted; where none was, nothing is compared.

        Raises:
            FolderGoneError: If none is there, or another one of that name.
        """
        if self._held is None:
            return
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._held), self._folder.stat()):
                return
        raise FolderGoneError(
            f"the run's folder {self._folder} was moved or removed in mid-run, or its disk was"
        )

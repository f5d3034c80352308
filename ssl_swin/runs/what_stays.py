"""What is left of a run whose disk takes nothing any more."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ssl_swin.disk_errors import DiskError, FolderGoneError, cannot_use, disk_error
from ssl_swin.runs.catalogue import Catalogue
from ssl_swin.runs.folder import RunFolder

PUT_BACK = (
    "with the folder put back in its place, the same command continues from its last checkpoint; "
    "without it, it begins anew"
)


@contextmanager
def telling_what_stays(folder: RunFolder, step: Callable[[], int] | None = None) -> Iterator[None]:
    """Name the checkpoint that a run can go on from, whatever it was that could not be written.

    Args:
        folder: Of the run.
        step: Returns the number of optimiser steps done; None before the first one.

    Raises:
        DiskError: In place of an error that lies in the disk.
    """
    try:
        yield
    except (DiskError, OSError) as error:
        told = _told(error)
        if not told:
            raise
        stopped = "" if step is None else f"stopped at step {step():,}; "
        stays = PUT_BACK if isinstance(error, FolderGoneError) else _what_stays(folder)
        raise DiskError(f"{told}\n{stopped}{stays}") from error


def _told(error: DiskError | OSError) -> str:
    if isinstance(error, DiskError):
        return str(error)
    cause = disk_error(error)
    return "" if cause is None else cannot_use(cause)


def _what_stays(folder: RunFolder) -> str:
    healthy = (entry for entry in Catalogue(folder.checkpoints).by_step() if entry.healthy)
    newest = next(healthy, None)
    if newest is None:
        return (
            "there is no earlier checkpoint: make room or mend the disk, or choose another "
            "run_dir=, and give the command again"
        )
    return (
        f"{folder.checkpoints / newest.name} of step {newest.step:,} stays: make room or mend the "
        "disk, and the same command continues from it"
    )

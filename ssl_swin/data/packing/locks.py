"""One packer at a time: the whole, or any number of different parts."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ssl_swin.data.packing.part import Part
from ssl_swin.errors import UserError

LOCK_NAME = ".pack.lock"
LOCK_WAIT_S = 2.0  # the workers of a packer that was killed take a moment to end


@contextmanager
def only_packer(folder: Path, part: Part | None) -> Iterator[None]:
    """Hold the folder alone, or the part.

    Args:
        folder: Folder of the shards.
        part: The part that is packed; None packs or joins the whole.

    Raises:
        UserError: If another process holds it.
    """
    if part is None:
        paths = [folder / LOCK_NAME, *sorted(folder.glob(".pack.*-of-*.lock"))]
    else:
        with _held(folder, [folder / LOCK_NAME], "is packing"):
            pass  # nobody packs the whole
        paths = [folder / part.lock_name]
    with _held(folder, paths, "is packing" if part is None else f"is packing part {part}"):
        yield


@contextmanager
def _held(folder: Path, paths: list[Path], what: str) -> Iterator[None]:
    with ExitStack() as stack:
        for path in paths:
            lock = FileLock(path)
            try:
                lock.acquire(timeout=LOCK_WAIT_S)
            except Timeout:
                raise UserError(f"another process {what} to {folder}. Wait for its end") from None
            stack.callback(lock.release)
            stack.callback(path.unlink, missing_ok=True)  # before others can have the lock
        yield

"""Writing files so that nobody ever sees half of one."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl_swin.disk_errors import DiskError, disk_error
from ssl_swin.errors import UserError

_UNFINISHED: set[Path] = set()  # temporary files that this process is writing
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")  # as `atomic_path` names them


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is fsynced and renamed to `path`.

    If the block raises, the temporary file is removed and `path` is left as it was.

    Raises:
        DiskError: If the disk is full, read-only or gone.
        UserError: If the folder cannot be created or written to, or `path` is one.
    """
    target = Path(path)
    if os.path.isdir(target):  # false of a name that no disk takes, unlike Path.is_dir
        raise UserError(f"cannot write the file {target}: it is a folder")
    temporary = _reserve_temporary(target)
    _UNFINISHED.add(temporary)
    try:
        yield temporary
        fsync(temporary)
        os.replace(temporary, target)
        fsync(target.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        cause = disk_error(error)
        if cause is None:
            raise
        raise DiskError(f"cannot write {target}: {cause.strerror}") from error
    finally:
        _UNFINISHED.discard(temporary)


def remove_unfinished() -> None:
    """Remove the temporary files that this process is writing; it must end after that."""
    for path in list(_UNFINISHED):
        with suppress(OSError):
            remove(path)


@contextmanager
def temporary_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder beside `path`, which is removed in the end unless it was given a name.

    Raises:
        UserError: If the folder around it cannot be created or written to.
    """
    target = Path(path)
    make_folder(target.parent)
    try:
        name = tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise DiskError(f"cannot write {target}: {error.strerror}") from error
    folder = Path(name)
    folder.chmod(0o777 & ~_umask())
    _UNFINISHED.add(folder)
    try:
        yield folder
    finally:
        with suppress(OSError):
            remove(folder)
        _UNFINISHED.discard(folder)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: str | os.PathLike[str], *, before: float) -> list[Path]:
    """Remove the temporary files and folders that killed processes have left, at any depth.

    Args:
        folder: A folder that no other process writes to.
        before: Time of the last change, in seconds since 1970, from which on they are left alone.

    Returns:
        What was removed.
    """
    removed = []
    for parent, folders, names in os.walk(folder):
        for name in filter(TEMPORARY.fullmatch, (*folders, *names)):
            path = Path(parent, name)
            with suppress(OSError):
                if path.lstat().st_mtime < before:
                    remove(path)
                    removed.append(path)
    return removed


def set_aside(path: str | os.PathLike[str]) -> Path:
    """Give a damaged file a name under which nothing reads it, NAME.damaged, and return that.

    Args:
        path: The file; an earlier damaged one is replaced.
    """
    damaged = Path(f"{os.fspath(path)}.damaged")
    if damaged.is_dir() or os.path.isdir(path):  # no folder replaces anything
        remove(damaged)
    os.replace(path, damaged)
    return damaged


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes `content` (text as UTF-8) to `path`, all of it or nothing.

    Raises:
        UserError: If the folder cannot be created or written to.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_once(path: str | os.PathLike[str], content: str) -> None:
    """Writes `content` to `path` unless it is there; of several processes, one writes all of it.

    Raises:
        UserError: If the folder cannot be created or written to.
    """
    target = Path(path)
    temporary = _reserve_temporary(target)
    try:
        temporary.write_text(content)
        fsync(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            if not target.exists():
                os.replace(temporary, target)
        fsync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Creates `path` with its parents if need be, and checks that it can be written to.

    Raises:
        DiskError: If it cannot be created or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"cannot create the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DiskError(f"no permission to write to the folder {folder}")
    return folder


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Leave no empty folder behind where there was none before the block."""
    was_there = folder.exists()
    try:
        yield
    finally:
        if not was_there:
            with suppress(OSError):  # it has something in it
                folder.rmdir()


def check_can_be_made(folder: Path, key: str) -> None:
    """Refuse a folder that cannot be made or written to; nothing is made yet.

    Args:
        folder: Where something will be written.
        key: The setting that names it.

    Raises:
        UserError: If a file or a link stands in the way, or there is no permission.
    """
    try:
        whole = folder.resolve()
        there = next(each for each in (whole, *whole.parents) if each.exists())
    except (RuntimeError, OSError) as error:  # a link that leads in a circle
        raise UserError(f"{key}: cannot create the folder {folder}: {error}") from error
    if not there.is_dir():
        raise UserError(f"{key}: cannot create the folder {folder}: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"no permission to write to the folder {there}, for {key}={folder}")


def _reserve_temporary(target: Path) -> Path:
    make_folder(target.parent)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise DiskError(f"cannot write {target}: {error.strerror}") from error
    os.close(handle)
    os.chmod(name, 0o666 & ~_umask())  # mkstemp makes private files; these are ordinary results
    return Path(name)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def fsync(path: str | os.PathLike[str]) -> None:
    """Wait until a file or folder is on the disk.

    Args:
        path: The file or folder.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

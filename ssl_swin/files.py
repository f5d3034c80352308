"""Writing files so that nobody ever sees half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_swin.errors import UserError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is fsynced and renamed to `path`.

    If the block raises, the temporary file is removed and `path` is left as it was.

    Raises:
        UserError: If the folder cannot be created or written to.
    """
    target = Path(path)
    temporary = _reserve_temporary(target)
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, target)
        _fsync(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
        _fsync(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            if not target.exists():
                os.replace(temporary, target)
        _fsync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Creates `path` with its parents if need be, and checks that it can be written to.

    Raises:
        UserError: If it cannot be created or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"no permission to write to the folder {folder}")
    return folder


def _reserve_temporary(target: Path) -> Path:
    make_folder(target.parent)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    os.close(handle)
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)  # mkstemp makes private files; these are ordinary results
    return Path(name)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

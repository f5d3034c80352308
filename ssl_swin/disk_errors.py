"""What a disk says when it cannot write, told apart from what a program did wrong."""

import errno
import os
from pathlib import Path

from ssl_swin.errors import UserError

OF_THE_DISK = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV,
        errno.EACCES, errno.EPERM,
    }
)  # fmt: skip


WHILE_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


class DiskError(UserError):
    """A file that could not be written for a reason that lies in the disk."""


class FolderGoneError(DiskError):
    """A run's folder that is no longer where it was."""


def disk_error(error: BaseException) -> OSError | None:
    """Return the error of the disk that an error is, or was raised after; None without any.

    Args:
        error: For example that of a library which was writing when the disk was full.
    """
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and (at.errno in OF_THE_DISK or _is_folder_gone(at)):
            return at
        at = at.__cause__ or at.__context__
    return None


def cannot_use(error: OSError) -> str:
    """Return in words what a disk refuses.

    Args:
        error: The disk's.
    """
    verb = "write" if error.errno in WHILE_WRITING else "use"
    name = "a file" if error.filename is None else os.fsdecode(error.filename)
    return f"cannot {verb} {name}: {error.strerror}"


def _is_folder_gone(error: OSError) -> bool:
    name = error.filename
    return error.errno == errno.ENOENT and bool(name) and not Path(name).parent.is_dir()

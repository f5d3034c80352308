"""Fetching one file of a remote data set, tried again until it is complete.

A root is a URL that fsspec opens (http, https, s3, gs, ...), or `pipe:` and a shell command that
writes the file `{name}` to its output.
"""

import errno
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ssl_swin.errors import UserError

PIPE = "pipe:"

_CONNECT_S = 30
_SILENCE_S = 60  # without a byte; a whole transfer may take as long as it needs
_STDERR_CHARS = 300


def is_remote(root: str) -> bool:
    """Return whether `root` is a URL or a pipe rather than a folder."""
    return root.startswith(PIPE) or "://" in root


def fetch(
    root: str, name: str, out: Path, *, num_bytes: int | None, num_tries: int, first_wait_s: float
) -> None:
    """Write the file `name` of a remote set to `out`, which holds a part of it meanwhile.

    What a second try cannot change (no such file, no permission, a full disk) is not tried again.

    Args:
        root: URL or pipe of the set; a pipe is "pipe:aws s3 cp s3://bucket/{name} -" or the like.
        name: File name below `root`.
        out: File to write to; overwritten, and removed after a failure.
        num_bytes: Length that the file must have; None takes any.
        num_tries: Number of tries, at least 1.
        first_wait_s: Wait before the second try; it doubles before each further one.

    Raises:
        UserError: If the file did not come completely, or no installed package opens `root`.
    """
    for num_tried in range(1, num_tries + 1):
        try:
            _transfer(root, name, out)
            _check_size(out, num_bytes)
            return
        except Exception as error:  # every file system has exceptions of its own
            if num_tried == num_tries or _is_lasting(error):
                message = _describe(root, name, out, num_bytes, num_tried, error)
                out.unlink(missing_ok=True)
                raise UserError(message) from error
        time.sleep(first_wait_s * 2 ** (num_tried - 1))


def open_url(url: str) -> tuple[Any, str]:
    """Open the fsspec file system of a URL, and return it with the path there.

    File systems are kept by fsspec, one per process, so this may be called in a forked worker.

    Raises:
        ImportError: If the package that reads such URLs is not installed.
        ValueError: If fsspec knows no such URL.
    """
    from fsspec.core import url_to_fs

    if not url.startswith(("http://", "https://")):
        return url_to_fs(url)  # type: ignore[no-any-return]
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
    return url_to_fs(url, client_kwargs={"timeout": timeout, "trust_env": True})  # type: ignore[no-any-return]


def _transfer(root: str, name: str, out: Path) -> None:
    if root.startswith(PIPE):
        _run_pipe(root.removeprefix(PIPE), name, out)
        return
    encoded = quote(name) if root.startswith(("http://", "https://")) else name
    file_system, path = open_url(f"{root.rstrip('/')}/{encoded}")
    file_system.get_file(path, str(out))


def _run_pipe(command: str, name: str, out: Path) -> None:
    if "{name}" not in command:
        raise ValueError("the command must name the file to write by {name}")
    with out.open("wb") as file:
        done = subprocess.run(
            command.replace("{name}", shlex.quote(name)),
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
        )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-_STDERR_CHARS:]
        raise OSError(f"exit status {done.returncode}: {said or 'nothing on stderr'}")


def _check_size(out: Path, num_bytes: int | None) -> None:
    if num_bytes is not None and out.stat().st_size != num_bytes:
        raise OSError("the transfer ended early or the file was rewritten")


def _is_lasting(error: Exception) -> bool:
    kinds = (FileNotFoundError, PermissionError, ImportError, ValueError)
    return isinstance(error, kinds) or getattr(error, "errno", None) == errno.ENOSPC


def _describe(
    root: str, name: str, out: Path, num_bytes: int | None, num_tried: int, error: Exception
) -> str:
    got = out.stat().st_size if out.exists() else 0
    wanted = "" if num_bytes is None else f" of {num_bytes}"
    tries = "1 try" if num_tried == 1 else f"{num_tried} tries"
    return (
        f"cannot fetch {name} from {root}: got {got}{wanted} bytes, gave up after {tries} "
        f"({type(error).__name__}: {error}). Check address, network and access; if the set was "
        "rewritten, index it anew with ssl-swin index"
    )

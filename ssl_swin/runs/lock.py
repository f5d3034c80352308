"""One process at a time has a run's folder.

The owner's name lies in the folder and its time of change is a sign of life. A process that is gone
blocks nobody: on the same machine that is seen at once, from another one when the signs stop.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ssl_swin.errors import UserError
from ssl_swin.files import make_folder, write_atomically

SIGN_OF_LIFE_S = 5.0
GONE_AFTER_S = 4 * SIGN_OF_LIFE_S  # without a sign
LAUNCHERS = (
    "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID", "SLURM_STEP_ID",
)  # fmt: skip


class RunLock:
    """A run's folder, held by this process."""

    def __init__(self, folder: Path, *, when_lost: Callable[[str], None]) -> None:
        """Set the lock up; nothing is written yet.

        Args:
            folder: The run's folder.
            when_lost: Called with what happened if another process took the folder over, after
                this one gave no sign of life for long, as one that was suspended.
        """
        self.folder = folder
        self.path = folder / ".owner.json"
        self._when_lost = when_lost
        self._owner: dict[str, Any] | None = None
        self._released = threading.Event()

    def acquire(self, *, say: Callable[[str], None]) -> None:
        """Take the folder, which is created if need be; nothing happens if it is held already.

        Args:
            say: Prints a line, if it takes a while.

        Raises:
            UserError: If another process that is alive has it.
        """
        if self._owner is not None:
            return
        make_folder(self.folder)
        with _one_at_a_time(self.folder):
            self._refuse_if_owned(say)
            self._owner = _this_process()
            write_atomically(self.path, json.dumps(self._owner) + "\n")
        signs = threading.Thread(
            target=self._give_signs, args=(self._owner,), daemon=True, name="run lock"
        )
        signs.start()

    def check_same_launch(self) -> None:
        """Refuse, in a process that is not the first of its run, a folder of another run's.

        Raises:
            UserError: If a process that is alive, and was not started together with this one, has
                the folder.
        """
        owner = _read(self.path)
        if owner is None or owner["pid"] == os.getppid() or owner["launch"] == _launch():
            return
        if _is_here(owner) and _is_alive(owner["pid"], owner["started"]):
            raise UserError(self._refusal(owner))

    def release(self) -> None:
        """Leave the folder to others."""
        self._released.set()
        if self._owner is not None and _read(self.path) == self._owner:
            with suppress(OSError):
                self.path.unlink()
        self._owner = None

    def _refuse_if_owned(self, say: Callable[[str], None]) -> None:
        owner = _read(self.path)
        if owner is None:
            return
        if _is_here(owner):
            alive = owner["pid"] != os.getpid() and _is_alive(owner["pid"], owner["started"])
        else:
            say(
                f"note: process {owner['pid']} on {owner['host']} had {self.folder} last; looking "
                f"for {GONE_AFTER_S:g} s whether it is alive"
            )
            alive = _changes(self.path, within_s=GONE_AFTER_S)
        if alive:
            raise UserError(self._refusal(owner))

    def _refusal(self, owner: Mapping[str, Any]) -> str:
        return (
            f"{self.folder} is in use: process {owner['pid']} on {owner['host']} has been running "
            f"there since {owner['since']}. Wait for it, stop it, or choose another name="
        )

    def _give_signs(self, owner: Mapping[str, Any]) -> None:
        while not self._released.wait(SIGN_OF_LIFE_S):
            found = _read(self.path)
            if self._released.is_set():  # meanwhile, and the next owner may have come
                return
            if found is not None and found != owner:
                self._when_lost(self._refusal(found))
                return
            with suppress(OSError):
                os.utime(self.path)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process at a time look at the owner's name; where files cannot be locked, all."""
    lock = FileLock(folder / ".lock", timeout=2 * GONE_AFTER_S)
    with suppress(Timeout, OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _this_process() -> dict[str, Any]:
    return {
        **_machine(),
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "since": datetime.now(UTC).isoformat(sep=" ", timespec="seconds"),
        "launch": _launch(),
    }


def _machine() -> dict[str, Any]:
    """What numbers of processes are unique in: a boot of a machine, and a container there."""
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace}


def _launch() -> dict[str, str]:
    return {name: os.environ[name] for name in LAUNCHERS if name in os.environ}


def _read(path: Path) -> dict[str, Any] | None:
    """Return the owner, None if there is none or the file is damaged."""
    try:
        owner = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    complete = isinstance(owner, dict) and _this_process().keys() <= owner.keys()
    return owner if complete and isinstance(owner["pid"], int) else None


def _is_here(owner: Mapping[str, Any]) -> bool:
    return all(owner[key] == value for key, value in _machine().items())


def _is_alive(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return _start_of(pid) == started


def _start_of(pid: int) -> str:
    """Return when a process started, in ticks since the boot; a number may be given out again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def _changes(path: Path, *, within_s: float) -> bool:
    """Return whether a file is written or touched within some seconds."""
    deadline = time.monotonic() + within_s
    before = path.stat().st_mtime_ns
    while time.monotonic() < deadline:
        time.sleep(min(0.5, within_s / 10))
        try:
            if path.stat().st_mtime_ns != before:
                return True
        except FileNotFoundError:
            return False
    return False

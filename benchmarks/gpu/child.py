"""A command that may take so long and no longer, and not longer than who started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

ENDS_IN_S = 5  # what a command may do when it is told to end
POLL_S = 0.1
TERMINATED = 128 + signal.SIGTERM


class Ended(NamedTuple):
    """How a command came to its end."""

    code: int | None  # None where the time was up
    seconds: float


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Turns SIGTERM into an exit with code 143, so that what runs is ended, and files are whole.

    While it ends, another one changes nothing. For the main thread.
    """

    def leave(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_limited(
    words: Sequence[str], *, folder: Path, output: Path, limit_s: float, **environment: str
) -> Ended:
    """Runs `python -m WORDS`; what is left of it when the time is up is ended, children too.

    Args:
        words: A module and its arguments.
        folder: To run it in.
        output: File for all that it prints.
        limit_s: Time that it has.
        environment: Variables that are added to the environment.
    """
    variables: Mapping[str, str] = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
    start = time.monotonic()
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=variables,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    return Ended(code, time.monotonic() - start)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a command with all that it has started, by force where it must be."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + ENDS_IN_S
        while time.monotonic() < deadline and _is_there(process):
            time.sleep(POLL_S)


def _is_there(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True

"""A console that takes nothing any more, as of a closed terminal or a full disk, costs no run.

What a command was asked to print is another matter: text that is lost is no success.
"""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

FOR_A_WHILE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EINTR})


class Lasting:
    """Passes on what is written to a stream, and drops what that does not take."""

    def __init__(self, stream: TextIO, name: str, is_of_a_run: bool = True) -> None:
        """Tell of nothing yet.

        Args:
            stream: Where to.
            name: In words, for the one line that tells of it.
            is_of_a_run: Print that line, since the run goes on; else `refusal` has it.
        """
        self._stream = stream
        self._name = name
        self._is_told = not is_of_a_run
        self.refusal = ""  # why a text was not taken, unless its reader had left

    def write(self, text: str) -> int:
        """Write a text; of characters that the stream does not know, their escapes."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            plain = text.encode(error.encoding, "backslashreplace").decode(error.encoding)
            return self.write(plain)
        except (OSError, ValueError) as error:
            self._refused(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand everything to the system, as far as it takes it."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._refused(error)

    def end(self) -> None:
        """Let go of what was not taken, of which the interpreter would complain at its end."""
        self._is_told = True
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._refused(error)
            self._send_nowhere()

    def __getattr__(self, name: str) -> Any:
        """Answer as the stream does."""
        return getattr(self._stream, name)

    def _refused(self, error: OSError | ValueError) -> None:
        if not (isinstance(error, OSError) and error.errno in FOR_A_WHILE):
            self._send_nowhere()  # also what other processes of the run write there
        reason = f"{self._name} takes no text ({getattr(error, 'strerror', None) or error})"
        if not isinstance(error, BrokenPipeError):
            self.refusal = self.refusal or reason
        if self._is_told:
            return
        self._is_told = True
        other = sys.stdout if sys.stderr is self else sys.stderr
        print(f"note: {reason}: the run goes on", file=other)

    def _send_nowhere(self) -> None:
        with suppress(OSError, ValueError):
            _put_nothing_at(self._stream.fileno())
            self._stream.flush()


@contextmanager
def lasting_console(is_of_a_run: bool = True) -> Iterator[Lasting]:
    """Let nothing that is printed end the process; of closed streams, nothing takes the number.

    Args:
        is_of_a_run: Say that the run goes on, where its output is taken no more.

    Yields:
        The output; once it was flushed, its `refusal` tells why not all of it was taken.
    """
    if isinstance(sys.stdout, Lasting):
        yield sys.stdout
        return
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _put_nothing_at(number)
    before = sys.stdout, sys.stderr
    streams = [
        Lasting(stream or open(os.devnull, "w"), name, is_of_a_run)
        for stream, name in zip(before, ("the output", "the output of errors"), strict=True)
    ]
    sys.stdout, sys.stderr = streams
    try:
        yield streams[0]
    finally:
        for stream in streams:
            stream.end()
        sys.stdout, sys.stderr = before


def _put_nothing_at(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)

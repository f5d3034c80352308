"""Where progress is shown: a terminal, in which one line is drawn again and again, or a file."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from ssl_swin.display.pace import MOST_S, Clock, Pace
from ssl_swin.display.words import IN_ASCII, Part, plain_line, terminal_line

REDRAWN_S = 0.5  # at most so often: a calm line, which costs no time
USUAL_COLUMNS = 80
CLEAR = "\r\x1b[K"

Parts = Callable[[], Sequence[Part]]


def is_terminal(stream: TextIO) -> bool:
    """Return whether a line of a stream can be drawn again."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


class Screen:
    """Shows a line of progress, as often as is good where it is shown.

    What anyone else prints in between stands above the line.

    Attributes:
        has_lines: Whether a file has got a line.
    """

    def __init__(
        self,
        stream: str = "stderr",
        *,
        most_s: float = MOST_S,
        at_once: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        """Begin; nothing is shown yet.

        Args:
            stream: Which of "stdout" and "stderr".
            most_s: Longest time between lines, if it is not a terminal.
            at_once: Whether the first of these comes immediately, not only after a while.
            clock: Tells the time in seconds.
        """
        self._stream: TextIO = getattr(sys, stream)
        self.is_terminal = is_terminal(self._stream)
        self.has_lines = False
        self._clock = clock
        self._pace = Pace(most_s, at_once=at_once, clock=clock)
        self._redrawn_s: float | None = None
        self._aside: list[tuple[str, Any, _ClearsFirst]] = []

    def show(self, parts: Parts, ratio: float | None = None, *, now: bool = False) -> None:
        """Show a line if it is time for one.

        Args:
            parts: Gives its parts; called only then.
            ratio: Share of the work that is done, for a bar; None draws none.
            now: Whether it is time in any case.
        """
        if self.is_terminal:
            now_s = self._clock()
            if now or self._redrawn_s is None or now_s - self._redrawn_s >= REDRAWN_S:
                self._redrawn_s = now_s
                self._draw(terminal_line(parts(), ratio, self._columns() - 1))
        elif self._pace.due() or now:
            self.has_lines = True
            self._write(plain_line(parts()) + "\n")

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self._aside:
            self._give_back()
            self._write(CLEAR)

    def _draw(self, line: str) -> None:
        self.clear()
        self._write(line)
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            standing_in = _ClearsFirst(stream, self)
            self._aside.append((name, stream, standing_in))
            setattr(sys, name, standing_in)

    def _give_back(self) -> None:
        for name, stream, standing_in in self._aside:
            if getattr(sys, name) is standing_in:  # else somebody has put another one there
                setattr(sys, name, stream)
        self._aside.clear()

    def _write(self, text: str) -> None:
        encoding = (self._stream.encoding or "ascii").lower()
        if not encoding.startswith("utf"):
            text = text.translate(IN_ASCII)
        self._stream.write(text)
        self._stream.flush()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or USUAL_COLUMNS
        except (OSError, ValueError):
            return USUAL_COLUMNS


class _ClearsFirst:
    """Stands in for a stream while a line is on the terminal: what is written takes it off."""

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self._of = stream
        self._screen = screen

    def write(self, text: str) -> int:
        """Write as the stream does, without the line before it."""
        self._screen.clear()
        return self._of.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)

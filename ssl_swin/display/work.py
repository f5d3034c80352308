"""Progress of work on a number of things: packing, checking, measuring, computing features."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from ssl_swin.display.pace import Clock
from ssl_swin.display.screen import Screen
from ssl_swin.display.words import Part, duration, rate, time_left
from ssl_swin.stopping.stopped import is_first_by_environment

T = TypeVar("T")


class Work:
    """Shows on stderr how much of some work is done, how fast, and how long the rest takes.

    A terminal shows one line, which goes when the work ends. A file gets a line now and then, and
    a last one if there was one before: of short work nothing is told.
    """

    def __init__(
        self,
        name: str,
        total: int | None,
        unit: str = "images",
        *,
        done: int = 0,
        show: bool | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            name: What is done, as "packing".
            total: Number of things to do; None if nobody knows.
            unit: What they are, in the plural.
            done: How many were done before.
            show: False shows nothing; None does in all processes of a job but the first.
            clock: Tells the time in seconds.
        """
        self._name, self._total, self._unit = name, total, unit
        self._before = self._done = done
        self._shown = -1
        self._note = ""
        self._clock = clock
        self._started_s = clock()
        shown = is_first_by_environment() if show is None else show
        self._screen = Screen(clock=clock) if shown else None

    def advance(self, number: int = 1, note: str = "") -> None:
        """Count what was done.

        Args:
            number: Of things.
            note: What else there is to tell, as "2 bad"; it replaces an earlier one.
        """
        self._done += number
        self._note = note or self._note
        if self._screen is not None:
            self._screen.show(self._parts, self._ratio())

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *error: object) -> None:
        """End: the line of a terminal goes."""
        if self._screen is None:
            return
        if self._screen.has_lines and self._shown != self._done and error[0] is None:
            self._screen.show(self._parts, now=True)
        self._screen.clear()

    def _ratio(self) -> float | None:
        return self._done / self._total if self._total else None

    def _parts(self) -> list[Part]:
        self._shown = self._done
        elapsed_s, number = self._clock() - self._started_s, self._done - self._before
        of_all = "" if self._total is None else f" of {self._total:,}"
        parts = [Part(f"{self._name} {self._done:,}{of_all} {self._unit}")]
        if number and elapsed_s > 0:
            parts.append(Part(rate(number / elapsed_s, self._unit), keep=2))
        if self._note:
            parts.append(Part(self._note, keep=3))
        left_s = time_left(self._done, self._total, elapsed_s, number)
        if left_s:
            parts.append(Part(f"{duration(left_s)} left", keep=1))
        elif self._done == self._total:
            parts.append(Part(f"done in {duration(elapsed_s)}", keep=1))
        return parts


def followed(
    items: Iterable[T],
    name: str,
    total: int | None,
    unit: str = "images",
    *,
    show: bool | None = None,
) -> Iterator[T]:
    """Yield items, and show how many have been taken, as `Work` does.

    Args:
        items: What is gone through; each counts once it has been dealt with.
        name: What is done.
        total: Number of items; None if nobody knows.
        unit: What they are, in the plural.
        show: As in `Work`.
    """
    with Work(name, total, unit, show=show) as work:
        for item in items:
            yield item
            work.advance()

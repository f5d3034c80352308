"""How a line of progress reads, and how it fits into a terminal."""

import math
from collections.abc import Sequence
from typing import NamedTuple

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
MOST_BAR = 20  # characters
LEAST_BAR = 6  # below, none is drawn
SEPARATOR = " · "
IN_ASCII = str.maketrans({"·": "|", "━": "#", "─": "-"})


class Part(NamedTuple):
    """One of the facts of a line."""

    text: str
    keep: int = 0  # where there is too little room, the one with the largest number goes first
    short: str = ""  # the same where there is less room; "" if it cannot be said shorter


def duration(seconds: float) -> str:
    """Return a time in at most two units, as "12 s", "4 min" or "1 h 12 min".

    Args:
        seconds: At least 0; fractions are rounded up.
    """
    whole = math.ceil(seconds)
    if whole < MINUTE_S:
        return f"{whole} s"
    minutes = math.ceil(whole / MINUTE_S)
    if minutes < HOUR_S // MINUTE_S:
        return f"{minutes} min"
    if minutes < DAY_S // MINUTE_S:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = math.ceil(whole / HOUR_S)
    return f"{hours // 24} d {hours % 24} h"


def rate(number: float, unit: str) -> str:
    """Return how much is done in a second, in three digits, as "83.4 images/s".

    Args:
        number: Of units in a second.
        unit: What is counted, in the plural.
    """
    shown = f"{number:,.0f}" if number >= 99.95 else f"{number:.3g}"
    return f"{shown} {unit}/s"


def time_left(done: int, total: int | None, elapsed_s: float, of_them: int) -> float | None:
    """Return the seconds that are left; None as long as nothing says so.

    Args:
        done: Number of things that are done.
        total: Number of all; None if nobody knows.
        elapsed_s: Time that some of those took.
        of_them: Number of these.
    """
    if total is None or of_them < 1 or elapsed_s <= 0:
        return None
    return max(0, total - done) * elapsed_s / of_them


def plain_line(parts: Sequence[Part]) -> str:
    """Return a line for a file, with everything in it."""
    return SEPARATOR.join(part.text for part in parts)


def terminal_line(parts: Sequence[Part], ratio: float | None, width: int) -> str:
    """Return a line of at most `width` characters: what fits, and a bar where there is room.

    Args:
        parts: In the order of the line.
        ratio: Share of the work that is done; None draws no bar.
        width: Characters.
    """
    kept = list(parts)
    text = plain_line(kept)
    if len(text) > width:
        kept = [part._replace(text=part.short or part.text) for part in kept]
        text = plain_line(kept)
    while len(text) > width and len(kept) > 1:
        kept.remove(max(kept, key=lambda part: part.keep))
        text = plain_line(kept)
    length = min(MOST_BAR, width - len(text) - 1)
    if ratio is not None and length >= LEAST_BAR:
        full = int(length * min(1.0, ratio))
        text = "━" * full + "─" * (length - full) + " " + text
    return text[:width]

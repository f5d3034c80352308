"""Axes of a sweep's picture: where a setting or a result lies, and what is written beside it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ssl_swin.reporting.chart import format_number, nice_ticks

LOG_FROM = 20.0  # ratio of the largest to the smallest value
EDGE = 0.06  # of the axis, free on both sides
MOST_TICKS = 5
NOT_GIVEN = "-"  # of a setting that a job does not have


class Axis(NamedTuple):
    """Values along a line from 0 to 1."""

    texts: tuple[str, ...]  # each value once, in ascending order
    ticks: tuple[tuple[str, float], ...]  # what is written, and where
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_number: bool = True

    def place(self, text: str) -> float:
        """Return where a value is drawn."""
        if self.is_number:
            return self.of(float(text))
        return (self.texts.index(text) + 0.5) / len(self.texts)

    def of(self, value: float) -> float:
        """Return where a number is drawn."""
        if self.low == self.high:
            return 0.5
        low, high, at = (math.log(v) if self.is_log else v for v in (self.low, self.high, value))
        return EDGE + (1 - 2 * EDGE) * (at - low) / (high - low)


def axis_of(given: Sequence[str | None]) -> Axis:
    """Return the axis of a setting: numbers at their place, words at equal distances.

    Args:
        given: The values of the jobs, None for one that was not asked for it.
    """
    texts = list(dict.fromkeys(NOT_GIVEN if text is None else text for text in given))
    numbers = [_number(text) for text in texts]
    if any(number is None for number in numbers):
        names = tuple(sorted(texts))
        ticks = tuple((name, (at + 0.5) / len(names)) for at, name in enumerate(names))
        return Axis(names, ticks, is_number=False)
    known = [number for number in numbers if number is not None]
    ordered = tuple(text for _, text in sorted(zip(known, texts, strict=True)))
    low, high = min(known), max(known)
    is_log = low > 0 and high / low >= LOG_FROM
    axis = Axis(ordered, (), low, high, is_log)
    if len(ordered) <= MOST_TICKS:
        marks = [float(text) for text in ordered]
    elif is_log:
        marks = [10.0**power for power in range(-30, 31) if low <= 10.0**power <= high]
        marks = marks if 1 < len(marks) <= MOST_TICKS + 1 else [low, math.sqrt(low * high), high]
    else:
        marks = nice_ticks(low, high)
    return axis._replace(ticks=tuple((format_number(m, 3), axis.of(m)) for m in marks))


def result_axis(values: Sequence[float]) -> Axis:
    """Return the axis of the results.

    Args:
        values: Finite ones; none gives an axis without ticks.
    """
    if not values:
        return Axis((), ())
    axis = Axis((), (), min(values), max(values))
    ticks = nice_ticks(axis.low, axis.high)
    digits = _digits(ticks)
    return axis._replace(ticks=tuple((format_number(t, digits), axis.of(t)) for t in ticks))


def _digits(ticks: Sequence[float]) -> int:
    """Return how many digits tell neighbouring ticks apart."""
    if len(ticks) < 2:
        return 4
    span = abs(ticks[1] - ticks[0])
    largest = max(map(abs, ticks))
    return max(3, math.ceil(math.log10(largest / span)) + 2)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None

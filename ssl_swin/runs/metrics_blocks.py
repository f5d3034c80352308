"""Reads the lines of a `metrics.csv` by the block: a million rows in seconds, in bounded memory."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ssl_swin.runs.metrics_rows import MOST_STEP_DIGITS, LineCheck

BLOCK_BYTES = 1 << 20
LONGEST_LINE = 1 << 20  # bytes; what is longer is no line of metrics
_ZERO, _NEWLINE = b"0\n"
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """Yield what is left of a file in blocks that end with a line's end.

    Args:
        file: Open for reading. What is too long for a line is divided; the last line may be cut.
    """
    while block := file.read(BLOCK_BYTES):
        yield block if block.endswith(b"\n") else block + file.readline(LONGEST_LINE)


def steps_of_whole(lines: bytes, check: LineCheck) -> NDArray[np.int64] | None:
    """Return the steps of lines that are whole and in order; None if any of them is not.

    Args:
        lines: A block, as read.
        check: What a line must be; it has to be written as this package writes it.

    Returns:
        Step of each line, ascending.
    """
    shapes = set(_shapes(lines).splitlines(keepends=True))
    if not all(check.whole_line(shape) == shape for shape in shapes):
        return None
    steps = _first_numbers(lines)
    return steps if steps is not None and bool(np.all(steps[1:] > steps[:-1])) else None


def _shapes(lines: bytes) -> bytes:
    """Return lines with a single 0 in place of every run of digits: of these there are but few."""
    text = np.frombuffer(lines.translate(_DIGITS_AS_ZEROS), np.uint8)
    is_zero = text == _ZERO
    repeats = is_zero[1:] & is_zero[:-1]
    return bytes(text[:1]) + bytes(text[1:][~repeats])


def _first_numbers(lines: bytes) -> NDArray[np.int64] | None:
    """Return the number that each line begins with; None if one has too many digits."""
    text = np.frombuffer(lines, np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    starts = np.concatenate(([0], ends[:-1] + 1))
    numbers = np.zeros(len(starts), np.int64)
    is_digit = np.ones(len(starts), bool)
    for at in range(MOST_STEP_DIGITS + 1):
        digits = text[np.minimum(starts + at, ends)] - np.uint8(_ZERO)  # others wrap to above 9
        is_digit &= digits < 10
        if not is_digit.any():
            return numbers
        numbers = np.where(is_digit, 10 * numbers + digits, numbers)
    return None

"""Masks of single objects as run lengths, in the form of COCO.

The pixels of a mask are counted down its columns, from the left: so many of 0, so many of 1, and so
on in turn. `counts` is the list of these numbers, or a text that holds them in fewer bytes: from
the fourth on their difference to the one two places before, in digits of 5 bits, the lowest first.

Source: `maskApi.c` of the COCO API, `rleToString` and `rleFrString`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ZERO = 48  # code of the digit 0
_MORE, _SIGN = 32, 16  # bits of a digit: another follows; the number is negative, in the last one
_MOST_DIGITS = 8  # of a number: 40 bits, more than any image has pixels


def decode_rle(rle: Any, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the mask that run lengths stand for: uint8 (H, W) of 0 and 1.

    Args:
        rle: {"size": [H, W], "counts": ...}, where the counts are a list of numbers, a text or its
            bytes.
        size_px: Height and width that it must have.

    Raises:
        ValueError: If it is no such thing, or of another size.
    """
    try:
        size, counts = tuple(rle["size"]), rle["counts"]
    except (KeyError, TypeError) as error:
        raise ValueError('a mask is no {"size": [H, W], "counts": ...}') from error
    if size != size_px:
        raise ValueError(f"a mask is {_by(size)} px (height x width), its image {_by(size_px)}")
    runs = _runs_of_text(counts) if isinstance(counts, str | bytes) else _runs_of_list(counts)
    height_px, width_px = size_px
    if len(runs) and runs.min() < 0:
        raise ValueError(f"a run of a mask has {runs.min()} px")
    if runs.sum() != height_px * width_px:
        raise ValueError(
            f"the runs of a mask are of {runs.sum()} px in all, its image has "
            f"{height_px * width_px}"
        )
    values = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(values, runs).reshape(width_px, height_px).T


def encode_rle(mask: NDArray[Any]) -> dict[str, Any]:
    """Return the run lengths of a mask, with their counts as a text; see `decode_rle`.

    Args:
        mask: (H, W), where what is not 0 belongs to the object.
    """
    values = mask.T.ravel() != 0
    turns = np.flatnonzero(values[1:] != values[:-1]) + 1
    runs = np.diff(np.concatenate([[0] * (1 + int(values[0])), turns, [values.size]]))
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    return {"size": list(mask.shape), "counts": _text_of(numbers)}


def _text_of(numbers: NDArray[np.int64]) -> str:
    """Return numbers as digits of 5 bits, the lowest first."""
    rest, is_left = numbers, np.ones(len(numbers), dtype=bool)
    codes, are_written = [], []
    while is_left.any():
        digits, rest = rest & (_MORE - 1), rest >> 5
        more = rest != np.where(digits & _SIGN, -1, 0)
        codes.append(_ZERO + digits + _MORE * more)
        are_written.append(is_left)
        is_left = is_left & more
    written = np.stack(codes, axis=1)[np.stack(are_written, axis=1)]
    text: str = written.astype(np.uint8).tobytes().decode("ascii")
    return text


def _by(size: tuple[Any, ...]) -> str:
    return " x ".join(map(str, size))


def _runs_of_list(counts: Any) -> NDArray[np.int64]:
    runs = np.array(counts)
    if not isinstance(counts, list) or (counts and (runs.dtype.kind != "i" or runs.ndim != 1)):
        raise ValueError("the counts of a mask are neither whole numbers nor a text")
    return runs.astype(np.int64)


def _runs_of_text(counts: str | bytes) -> NDArray[np.int64]:
    data = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    digits = np.frombuffer(data, np.uint8).astype(np.int64) - _ZERO
    if not len(digits):
        return digits
    is_last = (digits & _MORE) == 0
    if digits.min() < 0 or digits.max() > 63 or not is_last[-1]:
        raise ValueError("the counts of a mask are no text of run lengths")
    first = np.concatenate([[0], np.flatnonzero(is_last)[:-1] + 1])
    places = np.arange(len(digits)) - first[np.cumsum(is_last) - is_last]
    if places.max() >= _MOST_DIGITS:
        raise ValueError("the counts of a mask hold a number that no image has pixels for")
    runs: NDArray[np.int64] = np.add.reduceat((digits & (_MORE - 1)) << (5 * places), first)
    is_negative = (digits[is_last] & _SIGN) > 0
    runs -= np.where(is_negative, 1 << (5 * (places[is_last] + 1)), 0)
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs

"""Masks whose classes are colours: a colour as one number, and from colours to classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_swin.data.no_class import NoClass
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted

FIRST_COLOUR = 2**40  # of the numbers of colours: past all that 32 bits of an integer hold
MOST_SHOWN = 5  # colours in a message


def rgb_of(name: str) -> list[int]:
    """Return red, green and blue of a colour such as "128-64-128".

    Raises:
        UserError: If it is none.
    """
    parts = name.split("-")
    if len(parts) == 3 and all(part.isascii() and part.isdigit() for part in parts):
        numbers = [int(part) for part in parts]
        if max(numbers) <= 255:
            return numbers
    raise UserError(
        f"task.masks.class_of_colour names {name!r}, which is no colour: give red, green and blue "
        "from 0 to 255, as 128-64-128"
    )


def coded_colours(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return each colour as a number: 2^40 + 65536 R + 256 G + B.

    Args:
        pixels: RGB, (H, W, 3).

    Returns:
        (H, W).
    """
    red, green, blue = np.moveaxis(pixels.astype(np.int64), -1, 0)
    codes: NDArray[np.int64] = FIRST_COLOUR + (red << 16) + (green << 8) + blue
    return codes


def colour_name(number: int) -> str:
    """Return the colour of a number as its red, green and blue, such as "128-64-128"."""
    return f"{number >> 16 & 255}-{number >> 8 & 255}-{number & 255}"


class ColourTable:
    """The class of each colour."""

    def __init__(self, class_of: Mapping[str, int | None], left_out: int) -> None:
        """Make the table.

        Args:
            class_of: Class by colour, such as {"128-64-128": 0}; None for what is left out.
            left_out: What stands for that in a result.

        Raises:
            UserError: If there is no colour, or one is none.
        """
        if not class_of:
            raise UserError("task.masks.class_of_colour names no colour: give some, or null")
        self.class_of = dict(class_of)
        known: dict[int, int] = {}
        for name, label in class_of.items():
            rgb = np.array(rgb_of(name), dtype=np.uint8)
            known[int(coded_colours(rgb))] = left_out if label is None else label
        numbers = sorted(known)
        self._numbers = torch.tensor(numbers)
        self._classes = torch.tensor([known[number] for number in numbers], dtype=torch.int16)

    def read(self, mask: Tensor, name: str) -> Tensor:
        """Return the class of each pixel.

        Args:
            mask: Numbers of colours, int64 (H, W).
            name: Name of the sample, for messages.

        Returns:
            int16 (H, W).

        Raises:
            NoClass: If the mask is of no colours, or one is not in the table, naming it and
                where it is.
        """
        if (mask < FIRST_COLOUR).any():
            raise NoClass(
                f"the mask of {name} holds values and no colours, so that masks.class_of_colour "
                "cannot tell its classes",
                "leave task.masks.class_of_colour=null",
            )
        places = torch.searchsorted(self._numbers, mask).clamp_(max=len(self._numbers) - 1)
        is_unknown = self._numbers[places] != mask
        if is_unknown.any():
            raise self._no_class(mask, is_unknown, name)
        return self._classes[places]

    def _no_class(self, mask: Tensor, is_unknown: Tensor, name: str) -> NoClass:
        numbers, firsts = np.unique(mask[is_unknown].numpy(), return_index=True)
        rows_columns: Any = is_unknown.nonzero()[torch.from_numpy(firsts[:MOST_SHOWN])].tolist()
        found = ", ".join(
            f"{colour_name(number)} (row {row}, column {column})"
            for number, (row, column) in zip(numbers.tolist(), rows_columns, strict=False)
        )
        if (more := len(numbers) - MOST_SHOWN) > 0:
            found += f" and {counted(more, 'other')}, as after smoothing or saving with loss"
        known = ", ".join(list(self.class_of)[:MOST_SHOWN])
        known += ", ..." if len(self.class_of) > MOST_SHOWN else ""
        return NoClass(
            f"the mask of {name} has the colour {found}, and what is known is {known}",
            "name it in task.masks.class_of_colour, with null as the class of what is left out",
        )


def no_classes_of_colours(mask: Tensor, name: str) -> NoClass:
    """Return why a mask of colours cannot be read where none has a class.

    Args:
        mask: Numbers of colours, among them at least one.
        name: Name of the sample.
    """
    numbers = np.unique(mask[mask >= FIRST_COLOUR].numpy())
    shown = ", ".join(colour_name(number) for number in numbers[:MOST_SHOWN].tolist())
    shown += f" and {len(numbers) - MOST_SHOWN} others" if len(numbers) > MOST_SHOWN else ""
    example = ",".join(
        f"{colour_name(number)}:{label}" for label, number in enumerate(numbers[:2].tolist())
    )
    return NoClass(
        f"the mask of {name} is of colours ({shown})",
        f"give the class of each by task.masks.class_of_colour='{{{example}}}'",
    )

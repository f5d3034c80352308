"""From the values that lie in mask files to classes, with every value accounted for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ssl_swin.arguments import MOST_VALUES, Count, MaskValue, checked
from ssl_swin.data.mask_colours import FIRST_COLOUR, ColourTable, no_classes_of_colours
from ssl_swin.data.no_class import NoClass
from ssl_swin.errors import UserError

IGNORED = -1  # class of a pixel that is neither learnt nor judged
_UNKNOWN = -2
MOST_SHOWN = 5  # values in a message


@checked
@dataclass(frozen=True)
class MaskClasses:
    """What the values of a mask stand for.

    Attributes:
        ignore_value: Value of pixels that are left out; None where there is none.
        reduce_zero_label: Whether 0 is left out and 1 is the first class, as in ADE20K.
        class_of: Class by value, as {0: 0, 255: 1} for a mask of black and white; None where values
            are classes.
        class_of_colour: Class by red, green and blue, as {"128-64-128": 0}, for masks of colours;
            None as the class leaves a colour out. None where masks are of values.
    """

    ignore_value: MaskValue | None = 255
    reduce_zero_label: bool = False
    class_of: Mapping[MaskValue, Count] | None = None
    class_of_colour: Mapping[str, Count | None] | None = None
    _tables: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    _colours: ColourTable | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse two answers to one question.

        Raises:
            UserError: With both, or if a colour is none.
        """
        tables = {
            "class_of tells the class of each value": self.class_of,
            "class_of_colour tells the class of each colour": self.class_of_colour,
            "reduce_zero_label=true": self.reduce_zero_label or None,
        }
        given = [name for name, table in tables.items() if table is not None]
        if len(given) > 1:
            raise UserError(f"masks.{given[0]}, and masks.{given[1]}, too: set one of them")
        if self.class_of_colour is not None:
            plain_colours = {str(name): of for name, of in self.class_of_colour.items()}
            object.__setattr__(self, "class_of_colour", plain_colours)
            object.__setattr__(self, "_colours", ColourTable(plain_colours, IGNORED))
        if self.class_of is not None:  # plain, where a configuration gave its own kind
            plain = {int(value): int(of) for value, of in self.class_of.items()}
            object.__setattr__(self, "class_of", plain)

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make the same, as JSON takes them; see `of_settings`."""
        return {
            "ignore_value": self.ignore_value,
            "reduce_zero_label": self.reduce_zero_label,
            "class_of": self.class_of and [[*pair] for pair in self.class_of.items()],
            "class_of_colour": self.class_of_colour,
        }

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Make what `settings` describes.

        Raises:
            ValueError, TypeError, UserError: If they are none.
        """
        class_of = settings["class_of"]
        return cls(**{**settings, "class_of": None if class_of is None else dict(class_of)})

    def check_classes(self, num_classes: int) -> None:
        """Refuse classes of values that there are not.

        Args:
            num_classes: Number of classes.

        Raises:
            UserError: Naming the largest class.
        """
        for name in ("class_of", "class_of_colour"):
            classes = [of for of in (getattr(self, name) or {}).values() if of is not None]
            if classes and max(classes) >= num_classes:
                raise UserError(
                    f"task.masks.{name} names class {max(classes)}, and there are {num_classes} "
                    "classes, from 0"
                )

    @property
    def are_colours(self) -> bool:
        """Whether classes are told by colours."""
        return self.class_of_colour is not None

    def read(self, mask: Tensor, num_classes: int, name: str) -> Tensor:
        """Return the class of each pixel.

        Args:
            mask: Values as stored, integers (H, W); of colours as `coded_colours` makes them.
            num_classes: Number of classes.
            name: Name of the sample, for messages.

        Returns:
            int16 (H, W), `IGNORED` for what is left out.

        Raises:
            NoClass: If a value or colour is of no class, naming it.
        """
        values = mask.long()
        if self._colours is not None:
            return self._colours.read(values, name)
        if (values >= FIRST_COLOUR).any():
            raise no_classes_of_colours(values, name)
        is_outside = (values < 0) | (values >= MOST_VALUES)
        if is_outside.any():
            raise self._no_class(values[is_outside], num_classes, name)
        classes = self._table(num_classes)[values]
        is_unknown = classes == _UNKNOWN
        if is_unknown.any():
            raise self._no_class(values[is_unknown], num_classes, name)
        return classes

    def class_of_value(self, value: int, num_classes: int | None) -> int | None:
        """Return the class of one value or colour, `IGNORED` for what is left out; None for none.

        Args:
            value: As stored, or the number of a colour.
            num_classes: Number of classes; None where it is not known.
        """
        if num_classes is None:
            known = (self.class_of or self.class_of_colour or {}).values()
            num_classes = max((of for of in known if of is not None), default=MOST_VALUES - 2) + 1
        try:
            return int(self.read(torch.tensor([[value]]), num_classes, ""))
        except NoClass:
            return None

    def _table(self, num_classes: int) -> Tensor:
        """Return the class of each value, int16."""
        if num_classes not in self._tables:
            table = torch.full((MOST_VALUES,), _UNKNOWN, dtype=torch.int16)
            if self.class_of is None:
                first = int(self.reduce_zero_label)
                table[first : first + num_classes] = torch.arange(num_classes, dtype=torch.int16)
                table[:first] = IGNORED
            else:
                for value, of in self.class_of.items():
                    table[value] = of
            if self.ignore_value is not None:
                table[self.ignore_value] = IGNORED
            self._tables[num_classes] = table
        return self._tables[num_classes]

    def _no_class(self, found: Tensor, num_classes: int, name: str) -> NoClass:
        wrong = np.unique(found.numpy())
        shown = ", ".join(map(str, wrong[:MOST_SHOWN].tolist()))
        shown += f" and {len(wrong) - MOST_SHOWN} others" if len(wrong) > MOST_SHOWN else ""
        known = self._known(num_classes)
        return NoClass(
            f"the mask of {name} has the value {shown}, and what is known is {known}",
            "give as many classes, or say what values stand for by task.masks.ignore_value, "
            "task.masks.reduce_zero_label or task.masks.class_of='{0:0,255:1}'",
        )

    def _known(self, num_classes: int) -> str:
        if self.class_of is not None:
            known = ", ".join(map(str, sorted(self.class_of)))
        else:
            first = int(self.reduce_zero_label)
            last = first + num_classes - 1
            known = f"{first} to {last}" if last > first else f"{first}"
            known += ", and 0 for none" if self.reduce_zero_label else ""
        return known if self.ignore_value is None else f"{known} and {self.ignore_value}, left out"

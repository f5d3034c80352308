"""The label of a sample: the number in its `.cls` file, or a value in a file of JSON."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ssl_swin.data.shards.layout import SampleLayout, label_file
from ssl_swin.errors import UserError

MAX_LABEL_BYTES = 1 << 24  # of a file that holds a label; more is damage, or meant to fill memory
_MAX_LABEL = 2**31 - 1
_DIGITS = re.compile(rb"\s*[0-9]{1,10}\s*")
_NUMBER = re.compile("0|[1-9][0-9]{0,9}")
_MOST_NESTED = 3  # groups in groups that are searched for labels
_UNLABELLED = ("", "-1")


def label_number(content: bytes) -> int:
    """Return the label in a `.cls` file.

    Raises:
        ValueError: If it is no number. The message continues "sample NAME".
    """
    if not _DIGITS.fullmatch(content) or int(content) > _MAX_LABEL:
        raise ValueError(
            f"has a .cls file that is no label: {content[:40]!r}. A label is a number from 0; "
            "class names are read with --label-key cls: (data.label_key='cls:')"
        )
    return int(content)


def label_value(content: bytes, layout: SampleLayout) -> str | None:
    """Return the label that `layout.label_key` names in a file, as a text.

    Args:
        content: The contents of the file.
        layout: Where the label stands.

    Returns:
        A class name, or a whole number in decimal digits; None if the file has no label.

    Raises:
        ValueError: If it is neither. The message continues "sample NAME".
    """
    extension, keys = label_file(layout)
    value = _parsed(content, extension) if keys or extension == "json" else _text(content)
    path = ".".join(keys)
    if isinstance(value, Mapping) and path in value:  # a key that has dots itself
        keys = (path,)
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    if isinstance(value, Mapping):
        held = ", ".join(f"{path}.{inner}".lstrip(".") for inner in list(value)[:8])
        raise ValueError(f"has a group of values where its label should be. Choose one: {held}")
    return _as_text(value, path or f".{extension}")


def label_keys(content: bytes) -> list[str]:
    """Return the keys of a JSON file that could hold a label, nested ones as "a.b"."""
    try:
        value = _parsed(content, "json")
    except ValueError:
        return []
    return list(_paths(value)) if isinstance(value, Mapping) else []


@dataclass(frozen=True)
class LabelValues:
    """What the values under a label key mean.

    Attributes:
        classes: Class names by label; empty where they are not known.
        by_name: Whether a value is always the name of its class; otherwise a number is the label
            itself.
    """

    classes: tuple[str, ...] = ()
    by_name: bool = False

    def number(self, value: str) -> int:
        """Return the label that a value means.

        Raises:
            ValueError: If there is no such class. The message continues "sample NAME".
        """
        is_label = not self.by_name and _NUMBER.fullmatch(value)
        if self.classes and not is_label:
            if value not in self._numbers:
                known = ", ".join(self.classes[:5])
                raise ValueError(f"has the label {value!r}, which is no class: {known}, ...")
            return self._numbers[value]
        if not is_label or int(value) > _MAX_LABEL:
            raise ValueError(
                f"has the label {value!r}, which is no number; class names are numbered by an "
                "index: ssl-swin index FOLDER --label-key KEY"
            )
        return int(value)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}


NO_VALUES = LabelValues()


def values_of_classes(classes: Sequence[str]) -> LabelValues:
    """Return what values mean that nobody has seen yet: names, or labels if no name is a number."""
    return LabelValues(tuple(classes), by_name=any(map(_NUMBER.fullmatch, classes)))


def understand_values(values: Iterable[str], classes: Sequence[str], of: str) -> LabelValues:
    """Decide what values under a label key mean.

    Without class names, the sorted values are the classes: numbers in the order of numbers. With
    class names, values are names; or labels, if all values are numbers and no name is.

    Args:
        values: All values that occur.
        classes: Class names by label; empty where nobody gave any.
        of: Where the values stand, for the message.

    Raises:
        UserError: If a value is neither a name nor a number.
    """
    found = set(values)
    are_numbers = all(map(_NUMBER.fullmatch, found))
    if not classes:
        ordered = sorted(found, key=int) if are_numbers else sorted(found)
        return LabelValues(tuple(ordered), by_name=True)
    if are_numbers and not any(map(_NUMBER.fullmatch, classes)):
        return LabelValues(tuple(classes), by_name=False)
    if unknown := sorted(found - set(classes)):
        raise UserError(
            f"{of} has {len(unknown)} labels that are no class, the first is {unknown[0]!r}; the "
            f"{len(classes)} class names known are such as {classes[0]!r}. Correct classes.txt "
            "beside the shards, or delete it (and index.json, which keeps class names)"
        )
    return LabelValues(tuple(classes), by_name=True)


def _parsed(content: bytes, extension: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"has a .{extension} file that is no JSON: {content[:40]!r}") from error


def _text(content: bytes) -> str:
    try:
        return content.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"has a label that is no text: {content[:40]!r}") from error


def _as_text(value: Any, where: str) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or str(value).strip() in _UNLABELLED:
        return None
    if not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
        raise ValueError(
            f"has {value!r:.60} under the label key {where}; a label is a whole number from 0, or "
            "a class name"
        )
    return str(value).strip()


def _paths(value: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and prefix.count(".") < _MOST_NESTED:
            yield from _paths(inner, f"{prefix}{key}.")
        elif isinstance(inner, bool | int | str):
            yield f"{prefix}{key}"

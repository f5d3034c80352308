"""The names of classes, compared within and between the splits of a set."""

import unicodedata
from collections.abc import Iterable, Mapping

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.sources.left_out import some
from ssl_swin.errors import UserError


def common_classes(sources: Mapping[str, ImageDataset]) -> tuple[str, ...]:
    """Return the class names that all splits share.

    Args:
        sources: Data sets by split.

    Raises:
        UserError: If two splits differ.
    """
    first = "train" if "train" in sources else next(iter(sources))
    source = sources[first]
    for split, other in sources.items():
        if other.classes != source.classes:
            way_out = "" if other.classes else ", give those of val by --val-labels"
            raise UserError(
                f"the splits differ in their classes: {first} has {len(source.classes)}, {split} "
                f"has {len(other.classes)} ({_difference(first, source, split, other)}). Make the "
                f"class folders equal{way_out}, or leave the labels out: ssl-swin pack --no-labels"
            )
    return source.classes


def similar_classes(sources: Mapping[str, ImageDataset]) -> list[str]:
    """Return a line on class names of one split that a person may take for equal.

    Args:
        sources: Data sets by split.
    """
    seen: dict[str, str] = {}
    for name in next(iter(sources.values())).classes:
        first = seen.setdefault(_alike(name), name)
        if first != name:
            return [f"two classes differ only {_in_what(first, name)}: {first!a} and {name!a}"]
    return []


def _difference(first: str, source: ImageDataset, second: str, other: ImageDataset) -> str:
    ours, theirs = (sorted(set(a) - set(b)) for a, b in _both(source.classes, other.classes))
    for name in ours:
        for twin in theirs:
            if _alike(name) == _alike(twin):
                return (
                    f"{name!a} of {first} and {twin!a} of {second} differ only "
                    f"{_in_what(name, twin)}"
                )
    return f"only in {first}: {some(ours, 5)}; only in {second}: {some(theirs, 5)}"


def _both(first: Iterable[str], second: Iterable[str]) -> list[tuple[list[str], list[str]]]:
    ours, theirs = list(first), list(second)
    return [(ours, theirs), (theirs, ours)]


def _alike(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _in_what(first: str, second: str) -> str:
    same_form = (unicodedata.normalize("NFC", name) for name in (first, second))
    if len(set(same_form)) == 1:
        return "in how their letters are encoded (Unicode NFC and NFD)"
    if first.strip() == second.strip():
        return "in blanks at their ends"
    return "in capital letters" if first.casefold() == second.casefold() else "in their look-alikes"

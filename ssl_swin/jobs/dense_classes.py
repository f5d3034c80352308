"""The names of the classes of a dense task: those that are given, or those that the data names."""

from typing import Literal

from ssl_swin.data.dataset import NO_LABEL
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.protocol import Split
from ssl_swin.errors import UserError

MOST_NAMED = 5  # classes in a message
_EXAMPLES = {"masks": "[background,nucleus]", "boxes": "[car,dog]"}


def dense_classes(given: object, reader: Split, of: Literal["masks", "boxes"]) -> list[str]:
    """Return the names of classes by label.

    Args:
        given: Their names, or how many there are, which are then called 0, 1, ...; None takes
            those that the data names.
        reader: The training split.
        of: What they are classes of.

    Raises:
        UserError: If they are left to the data, which names none, or those of whole images.
    """
    if isinstance(given, int):
        return list(map(str, range(given)))
    if given is not None:
        return list(map(str, given))  # type: ignore[call-overload]
    if not reader.classes:
        raise UserError(
            f"the data does not name the classes of its {of}: give classes={_EXAMPLES[of]}, or how "
            "many there are; ssl-swin pack --classes NAMES puts them into shards"
        )
    if isinstance(reader, IndexedSplit) and (reader.dataset.labels() != NO_LABEL).any():
        raise UserError(
            f"the classes that the data names ({', '.join(reader.classes[:MOST_NAMED])}) are those "
            f"of its images: give the ones of the {of}, as classes={_EXAMPLES[of]}, or how many "
            "there are"
        )
    return list(reader.classes)

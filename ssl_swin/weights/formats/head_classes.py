"""Which classes of a classification head are kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.weights.formats.heads import HEAD

NUM_22K, NUM_1K = 21841, 1000
_SUBSET_22K, _SUBSET_1K = "imagenet-21k-goog", "imagenet-1k"  # timm's lists of synsets
# ImageNet-1k's teddy bear is not in ImageNet-22k; the published map has the garment in its place.
_TEDDY_BEAR, _CHEMISE = "n04399382", "n03013580"


def imagenet_1k_in_22k() -> tuple[int, ...]:
    """Returns, for each class of ImageNet-1k, its row in a head of the 21,841 of ImageNet-22k.

    Reference: `map22kto1k.txt`, by which the original's fine-tuning of 22k models starts. It is the
    place of each synset in the sorted list of them.
    """
    ((rows, _),) = published_rows(NUM_22K)
    return tuple(rows[synset] for synset in _synsets(_SUBSET_1K))


def published_rows(num_classes: int) -> list[tuple[dict[str, int], str]]:
    """Returns the rows of ImageNet's classes in a head of that many classes, and of which ImageNet.

    Classes are called by their synsets (n01440764); those of ImageNet-1k by their words too
    ("tench, Tinca tinca"), where no two share them. The order is that of the sorted synsets.

    Args:
        num_classes: Number of classes of the head; nothing is known of other numbers.
    """
    if num_classes == NUM_22K:
        rows = {synset: row for row, synset in enumerate(_synsets(_SUBSET_22K))}
        return [(rows | {_TEDDY_BEAR: rows[_CHEMISE]}, "ImageNet-22k")]
    if num_classes == NUM_1K:
        words = list(ImageNetInfo(_SUBSET_1K).label_descriptions())
        of_words = {word: row for row, word in enumerate(words) if words.count(word) == 1}
        of_synsets = {synset: row for row, synset in enumerate(_synsets(_SUBSET_1K))}
        return [(of_synsets, "ImageNet-1k"), (of_words, "ImageNet-1k")]
    return []


def _synsets(subset: str) -> list[str]:
    names: list[str] = ImageNetInfo(subset).label_names()  # type: ignore[no-untyped-call]
    return names


def read_rows(file: Path) -> tuple[int, ...]:
    """Returns the numbers in a file, one a line.

    Raises:
        UserError: If it cannot be read, is empty, or a line is no number.
    """
    try:
        lines = file.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as text: {error}") from error
    wrong = [line for line in lines if not line.isdecimal()] or ([] if lines else ["nothing"])
    if wrong:
        raise UserError(
            f"{file} must list rows of the head, one number from 0 a line, got {wrong[0][:80]!r}"
        )
    return tuple(map(int, lines))


def choose_classes(
    head: Mapping[str, Tensor],
    num_classes: int | Literal["any"] | None,
    rows: Sequence[int] | None,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Keeps the rows of a classification head that are asked for.

    Args:
        head: `head.fc.weight` and `head.fc.bias`, or nothing.
        num_classes: Number of classes that are to be kept; None keeps no head, "any" all of one.
        rows: The rows, in the order of the new classes. None takes all; of ImageNet-22k for 1000
            classes, the published map.

    Returns:
        The head, and a note where rows were chosen.

    Raises:
        UserError: If there is no head, or it has not the rows.
    """
    size = len(head[f"{HEAD}bias"]) if f"{HEAD}bias" in head else 0
    if rows is None:
        if (size, num_classes) != (NUM_22K, NUM_1K):
            return dict(head), ()
        rows, whence = imagenet_1k_in_22k(), "the published map of ImageNet-22k to 1k"
    else:
        whence = "the list that was given"
        _check_rows(rows, size, num_classes)
    chosen = {name: tensor[list(rows)].clone() for name, tensor in head.items()}
    return chosen, (f"the head keeps {len(rows)} of its {size} classes, by {whence}",)


def _check_rows(rows: Sequence[int], size: int, num_classes: int | Literal["any"] | None) -> None:
    if num_classes is None or len(rows) != num_classes:
        raise UserError(
            f"the list names {len(rows)} classes of the head: give num_classes={len(rows)} "
            f"(--num-classes {len(rows)}), got {num_classes}"
        )
    wrong = [row for row in rows if not 0 <= row < size]
    if wrong:
        has = f"{size} classes, 0 to {size - 1}" if size else "no classification head"
        raise UserError(f"the list names class {wrong[0]} of the head, and it has {has}")

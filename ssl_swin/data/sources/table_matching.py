"""Which image of a set a path in a table means."""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of
from ssl_swin.data.split_names import split_in_name
from ssl_swin.errors import UserError

Parts = tuple[str, ...]
Images = Mapping[str, list[int]]  # images by the last part of their path


class ImagePaths:
    """The paths of some images, to be found by what a table calls them.

    A cell fits an image whose path ends with it. Letters count as written, but for the ending and
    for how accents are encoded. Folders that all cells begin with need not be there, and a cell
    without the ending of an image fits an image of any ending.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Index the paths.

        Args:
            paths: Absolute paths of the images, in the order of their numbers.
        """
        self.parts = [_parts(os.fspath(path)) for path in paths]
        self._by_name = _by_last(map(_lower_ending, self.parts))
        self._by_stem = _by_last(map(_without_ending, self.parts))

    def find(self, cells: Sequence[str]) -> list[int | None]:
        """Return the number of the image that each cell means; None for no image.

        Raises:
            UserError: If a cell fits several images.
        """
        split = [_parts(cell) for cell in cells]
        num_common = _num_common_folders([parts for parts in split if parts])
        return [
            self._find(cell, parts, num_common) if parts else None
            for cell, parts in zip(cells, split, strict=True)
        ]

    def _find(self, cell: str, parts: Parts, num_common: int) -> int | None:
        if extension_of(parts[-1]) in IMAGE_EXTENSIONS:
            wanted, table, form = _lower_ending(parts), self._by_name, _lower_ending
        else:
            wanted, table, form = parts, self._by_stem, _without_ending
        lengths = {
            number: _num_equal(form(self.parts[number]), wanted)
            for number in table.get(wanted[-1], ())
        }
        longest = max(lengths.values(), default=0)
        if longest < max(1, len(wanted) - num_common):
            return None
        best = [number for number, length in lengths.items() if length == longest]
        if len(best) > 1:
            first, second = ("/".join(self.parts[number][-3:]) for number in best[:2])
            raise UserError(
                f"{cell!r} fits {len(best)} images, as {first} and {second}. The table must tell "
                "them apart by their folders"
            )
        return best[0]


def _parts(path: str) -> Parts:
    text = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return tuple(part for part in text.split("/") if part not in ("", "."))


def _lower_ending(parts: Parts) -> Parts:
    stem, ending = os.path.splitext(parts[-1])
    return (*parts[:-1], stem + ending.lower())


def _without_ending(parts: Parts) -> Parts:
    return (*parts[:-1], os.path.splitext(parts[-1])[0])


def _by_last(paths: Iterable[Parts]) -> Images:
    found: dict[str, list[int]] = {}
    for number, parts in enumerate(paths):
        found.setdefault(parts[-1], []).append(number)
    return found


def _num_equal(first: Parts, second: Parts) -> int:
    """Return how many parts at the end of two paths are equal."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return next(
        (n for n, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second))
    )


def _num_common_folders(cells: Sequence[Parts]) -> int:
    """Return with how many folders all cells begin, before one that names a split."""
    if not cells:
        return 0
    lowest, highest = min(cells)[:-1], max(cells)[:-1]
    for number, (one, other) in enumerate(zip(lowest, highest, strict=False)):
        if one != other or split_in_name(one) is not None:
            return number
    return min(len(lowest), len(highest))

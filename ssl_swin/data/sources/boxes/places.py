"""Where the images of annotations lie: the folder that holds files of their names."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_swin.data.file_types import extension_of
from ssl_swin.data.sources.boxes.reading import split_of_path
from ssl_swin.data.sources.folder_tree import (
    MOST_LEVELS,
    is_folder,
    is_left_out,
    read_folder,
    scan_folder,
)
from ssl_swin.data.sources.left_out import LeftOut
from ssl_swin.data.sources.mask_names import is_named_like_masks

MOST_LOOKED_FOR = 200  # names, evenly spread
ENOUGH = 0.5  # share of them in a folder that is named like theirs


class ImageFiles:
    """The image files of a folder and all below, by folder."""

    def __init__(self, root: Path, leave_out: Sequence[str] = ()) -> None:
        """Read the folder.

        Args:
            root: The folder.
            leave_out: Paths below it that are passed over.

        Raises:
            UserError: If it cannot be read.
        """
        self.root = root
        self.by_folder: dict[Path, dict[str, str]] = {}
        self.left_out: list[LeftOut] = []
        for folder in read_folder(root, leave_out).walk():
            self.left_out += folder.left_out
            names = [os.fsdecode(bytes(name)) for name in folder.images]
            if names:
                self.by_folder[root / folder.path] = {name: name for name in names}

    def by_stem(self) -> dict[Path, dict[str, str]]:
        """Return the names of files by the name without its extension, by folder."""
        return {
            folder: {os.path.splitext(name)[0]: name for name in names}
            for folder, names in self.by_folder.items()
        }


def files_by_stem(
    folder: Path, extension: str, leave_out: Sequence[str] = ()
) -> dict[Path, dict[str, str]]:
    """Return the files of a type below a folder, by folder and by name without the extension.

    Args:
        folder: The folder.
        extension: The extension, in lower case and without a dot.
        leave_out: Paths below it that are passed over.

    Raises:
        UserError: If a folder cannot be read.
    """
    found: dict[Path, dict[str, str]] = {}
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        for entry in scan_folder(current):
            path = current / entry.name
            inner = path.relative_to(folder)
            if is_left_out(inner.as_posix(), leave_out) or len(inner.parts) > MOST_LEVELS:
                continue
            if is_folder(entry):
                waiting.append(path)
            elif extension_of(entry.name) == extension:
                found.setdefault(current, {})[path.stem] = entry.name
    return dict(sorted(found.items()))


def below(folder: Path, root: Path) -> Path:
    """Return the path of a folder below another; of one that lies elsewhere, its own name."""
    return folder.relative_to(root) if folder.is_relative_to(root) else Path(folder.name)


def common_parent(folders: Collection[Path]) -> Path:
    """Return the folder that holds some folders, or is the only one."""
    return Path(os.path.commonpath(list(folders)))


class Found(NamedTuple):
    """Where images were found."""

    folder: Path
    bare: bool  # whether of their names only the last part is that of the file


def find_folder(
    names: Sequence[str],
    folders: Mapping[Path, Mapping[str, str]],
    *,
    root: Path,
    home: Path,
    split: str | None,
) -> Found | None:
    """Return the folder that holds the images of some names; None if none does.

    Of several, the one beside the annotations or named like their split is taken if it holds at
    least half of them, else the one that holds most. Folders named like masks are the last choice.

    Args:
        names: Names of images, which may begin with folders.
        folders: Names by which files are found, by folder.
        root: The folder above them all, at which names with folders may begin.
        home: The folder of the annotations.
        split: The split of the annotations, None for none.
    """
    numbers = np.unique(
        np.linspace(0, len(names) - 1, min(len(names), MOST_LOOKED_FOR)).astype(int)
    )
    asked = [names[number] for number in numbers.tolist()]
    best: tuple[tuple[bool, float, bool, int, int, bool], Found] | None = None
    above = [parent for folder in folders for parent in folder.parents if root in parent.parents]
    for folder in dict.fromkeys([*folders, *above, root]):
        inner = below(folder, root)
        holds_masks = any(map(is_named_like_masks, inner.parts))
        is_of_split = split is not None and split_of_path(inner) == split
        nearness = 2 * (folder == home) + is_of_split
        for bare in (False, True):
            if share := _share(asked, folder, folders, bare):
                is_likely = nearness > 0 and not holds_masks and share >= ENOUGH
                key = is_likely, share, not holds_masks, nearness, -len(folder.parts), not bare
                if best is None or key > best[0]:
                    best = key, Found(folder, bare)
    return None if best is None else best[1]


def located(name: str, found: Found, folders: Mapping[Path, Mapping[str, str]]) -> Path | None:
    """Return the file of a name; None if it is not there.

    Args:
        name: Name of the image.
        found: Where images were found.
        folders: As in `find_folder`.
    """
    before, _, last = name.rpartition("/")
    folder = found.folder / before if before and not found.bare else found.folder
    file = folders.get(folder, {}).get(last)
    return None if file is None else folder / file


def _share(
    names: Sequence[str], folder: Path, folders: Mapping[Path, Mapping[str, str]], bare: bool
) -> float:
    found = Found(folder, bare)
    return sum(located(name, found, folders) is not None for name in names) / len(names)

"""What a reader of annotations found, in the same form for every kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ssl_swin.data.sources.boxes.objects import Objects, Tally
from ssl_swin.data.sources.boxes.places import ImageFiles
from ssl_swin.data.sources.left_out import LeftOut, some
from ssl_swin.plurals import counted


class FoundSplit(NamedTuple):
    """The images of a split, and what of its annotations is left out."""

    images: list[Objects]
    tally: Tally


@dataclass
class Annotated:
    """The images and boxes of a data set.

    Attributes:
        splits: By name of the split.
        classes: Names of the classes by label.
        classes_from: Where they are from.
        notes: Lines on what else was found.
        left_out: Files that are not taken.
    """

    splits: dict[str, FoundSplit]
    classes: tuple[str, ...]
    classes_from: str
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def unlisted_images(splits: Mapping[str, FoundSplit], files: ImageFiles) -> list[LeftOut]:
    """Return the images beside those of the annotations that no split has.

    Args:
        splits: What was found.
        files: The images on disk.
    """
    used = {objects.image for found in splits.values() for objects in found.images}
    folders = {image.parent for image in used}
    others = [
        folder / name
        for folder in sorted(folders & files.by_folder.keys())
        for name in files.by_folder[folder]
        if folder / name not in used
    ]
    return [LeftOut(str(path), "no annotations list it") for path in others]


def note_on_shared(splits: Mapping[str, FoundSplit]) -> list[str]:
    """Return a line on images that two splits have."""
    lines = []
    names = sorted(splits)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            here, there = ({o.image for o in splits[split].images} for split in (one, other))
            if shared := sorted(here & there):
                shown = some([path.name for path in shared])
                lines.append(
                    f"{counted(len(shared), 'image')} of {one} are in {other}, too: {shown}"
                )
    return lines


def note_on_unlisted(files: Sequence[LeftOut]) -> list[str]:
    """Return a line on images that no annotations list."""
    if not files:
        return []
    names = some([Path(file.name).name for file in files])
    return [f"left out: {counted(len(files), 'image')} that no annotations list ({names})"]

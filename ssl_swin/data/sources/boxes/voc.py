"""Images with boxes as Pascal VOC has them: an XML file for each image."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_swin.data.sources.boxes.found import Annotated, FoundSplit
from ssl_swin.data.sources.boxes.objects import Objects, Tally, fitted
from ssl_swin.data.sources.boxes.places import (
    ImageFiles,
    below,
    common_parent,
    files_by_stem,
    find_folder,
    located,
)
from ssl_swin.data.sources.boxes.reading import BoxReading, split_of_path
from ssl_swin.data.sources.boxes.voc_file import VocFile, read_voc_file
from ssl_swin.data.sources.left_out import LeftOut, some
from ssl_swin.display.work import followed
from ssl_swin.errors import UserError

LISTS = Path("ImageSets") / "Main"  # beside Annotations/, in which a file of names is a split
_FROM_1 = "corners are whole pixels counted from 1, as Pascal VOC has them"
_FROM_0 = "corners are edges counted from 0"


class _Image(NamedTuple):
    """An image of a split."""

    path: Path
    file: VocFile


def read_voc(root: Path, reading: BoxReading, files: ImageFiles) -> Annotated:
    """Read the images and boxes of every split.

    An image belongs to the XML file of its name, in the same folder or another. Splits are the
    lists in `ImageSets/Main`, or else folders named like splits.

    Args:
        root: The folder.
        reading: How to read it.
        files: The images on disk.

    Raises:
        UserError: If there is no XML file, one is damaged, or none of the images is there.
    """
    stems_of = _splits(root, reading)
    tallies = {split: Tally(_title(folders)) for split, folders in stems_of.items()}
    images = {
        split: [
            image
            for folder, stems in folders.items()
            for image in _images(split, folder, stems, files, tallies[split])
        ]
        for split, folders in stems_of.items()
    }
    images = {split: found for split, found in images.items() if found}
    every = [image.file for found in images.values() for image in found]
    classes = _classes(every, reading.classes)
    first = reading.first_pixel
    if first is None:
        first = 0 if any(min(o.corners[:2]) <= 0 for f in every for o in f.objects) else 1
    splits = {
        split: FoundSplit(_objects(found, classes, first, tallies[split]), tallies[split])
        for split, found in images.items()
    }
    origin = "the names in the XML files, sorted" if reading.classes is None else "data.classes"
    return Annotated(splits, classes, origin, _notes(first, reading.first_pixel))


def _notes(first: int, asked: int | None) -> list[str]:
    if asked is not None:
        return []
    said = _FROM_1 if first else f"{_FROM_0}, as some begin at 0"
    other = f"data.first_pixel={1 - first} if {_FROM_0 if first else _FROM_1}"
    return [f"boxes: {said}; {other}"]


def _title(folders: Iterable[Path]) -> str:
    return " and ".join(f"{folder}/*.xml" for folder in folders)


def _splits(root: Path, reading: BoxReading) -> dict[str, dict[Path, list[str]]]:
    """Return names of XML files without their extension, by split and folder."""
    given = reading.given(root)
    lists = {split: path for split, path in given.items() if path.is_file()}
    places = [path for path in given.values() if path.is_dir()] or [root]
    found: dict[Path, dict[str, str]] = {}
    for place in places:
        found |= files_by_stem(place, "xml", reading.leave_out)
    if not found:
        raise UserError(f"no XML file in {places[0]} or below: give the folder that holds them")
    splits: dict[str, dict[Path, list[str]]] = {}
    for folder, names in found.items():
        own = lists or _lists_beside(folder)
        for split, path in own.items():
            listed = [stem for stem in _read_list(path, names) if stem in names]
            if listed:
                splits.setdefault(split or "train", {})[folder] = listed
        if not own:
            of_folder = next(
                (s for s, path in given.items() if path in (folder, *folder.parents)), ""
            )
            split = of_folder or split_of_path(below(folder, root)) or "train"
            splits.setdefault(split, {})[folder] = list(names)
    if not splits:
        raise UserError(
            f"none of the names in {next(iter(lists.values()), LISTS)} is that of an XML file in "
            f"{root} or below"
        )
    return dict(sorted(splits.items(), key=lambda item: item[0] != "train"))


def _lists_beside(folder: Path) -> dict[str, Path]:
    """Return the lists of names that belong to a folder of XML files, by split."""
    place = folder.parent / LISTS
    found = {split: place / f"{split}.txt" for split in ("train", "val", "test")}
    if not found["train"].is_file():
        found["train"] = place / "trainval.txt"
    return {split: path for split, path in found.items() if path.is_file()}


def _read_list(path: Path, known: Collection[str]) -> list[str]:
    """Return the names in a list, of which each line may say more after a blank.

    Args:
        path: The list.
        known: Names of files without their extension; others may have that of an image.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from error
    words = dict.fromkeys(line.split()[0] for line in lines if line.strip())
    return [word if word in known else os.path.splitext(word)[0] for word in words]


def _images(
    split: str, folder: Path, stems: Sequence[str], files: ImageFiles, tally: Tally
) -> list[_Image]:
    """Read the XML files of a folder, and find their images."""
    by_stem = files.by_stem()
    place = find_folder(stems, by_stem, root=files.root, home=folder, split=split)
    if place is None:
        raise UserError(
            f"none of the {len(stems)} XML files in {folder} has the name of an image below "
            f"{files.root}, the first is {stems[0]}.xml: give the folder that holds both"
        )
    found = []
    for stem in followed(stems, "reading annotations", len(stems), "files"):
        file = read_voc_file(folder / f"{stem}.xml")
        path = located(stem, place, by_stem) or located(file.image, place, files.by_folder)
        if path is None:
            reason = f"{file.path} is its annotation, and it is not there"
            tally.without_image.append(LeftOut(file.image or stem, reason))
        else:
            found.append(_Image(path, file))
    return found


def _classes(files: Sequence[VocFile], wanted: Sequence[str] | None) -> tuple[str, ...]:
    names = sorted({each.name for file in files for each in file.objects})
    if not names:
        raise UserError(f"no XML file has an object, as {files[0].path}")
    if wanted is None:
        return tuple(names)
    if missing := [name for name in wanted if name not in names]:
        raise UserError(
            f"data.classes has {missing[0]!r}, and no object is called so, but {some(names, 5)}"
        )
    return tuple(wanted)


def _objects(
    images: Sequence[_Image], classes: Sequence[str], first_pixel: int, tally: Tally
) -> list[Objects]:
    base = common_parent({image.path.parent for image in images})
    label_of: Mapping[str, int] = {name: label for label, name in enumerate(classes)}
    made = []
    for path, file in images:
        objects = Objects(path, path.relative_to(base).as_posix(), file.size_px)
        height_px, width_px = file.size_px
        for each in file.objects:
            x_min, y_min, x_max, y_max = each.corners
            box = fitted(
                [x_min - first_pixel, y_min - first_pixel, x_max, y_max], width_px, height_px
            )
            if each.name not in label_of:
                reason = "data.classes does not name it"
                tally.other_class.append(LeftOut(each.name, reason))
            elif box is None:
                text = f"{objects.name} {list(each.corners)}"
                tally.empty.append(LeftOut(text, "a box that is empty or outside its image"))
            else:
                objects.add(box, label_of[each.name], crowd=each.difficult)
        made.append(objects)
    return made

"""Images with boxes as YOLO has them: a text file for each image, and data.yaml."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_swin.data.sources.boxes.found import Annotated, FoundSplit
from ssl_swin.data.sources.boxes.objects import Objects, Tally
from ssl_swin.data.sources.boxes.places import (
    ImageFiles,
    common_parent,
    files_by_stem,
    find_folder,
)
from ssl_swin.data.sources.boxes.reading import BoxReading
from ssl_swin.data.sources.boxes.yolo_file import DataYaml, read_data_yaml, read_label_file
from ssl_swin.data.sources.boxes.yolo_images import images_by_folder, listed_images
from ssl_swin.data.sources.folder_tree import scan_folder
from ssl_swin.data.sources.left_out import LeftOut
from ssl_swin.data.split_names import IMAGE_WORDS
from ssl_swin.display.work import followed
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted

_YAML = (".yaml", ".yml")
_CLASS_LISTS = ("classes.txt", "obj.names")  # which labelling tools write

ByStem = Mapping[Path, Mapping[str, str]]


def read_yolo(root: Path, reading: BoxReading, files: ImageFiles) -> Annotated:
    """Read the images and boxes of every split.

    data.yaml says where the images of each split are; without it, folders named like splits are
    splits. The labels of an image lie in the folder `labels` beside its folder `images`, or in the
    same folder, or in another that has files of the same names.

    Args:
        root: The folder of the images, or data.yaml.
        reading: How to read it.
        files: The images on disk.

    Raises:
        UserError: If there are no images or no labels, or a file is damaged.
    """
    given = {} if root.is_file() else reading.given(root)
    if given and list(given) != [""]:
        raise UserError(
            f"data.annotations={reading.annotations} must be one path for YOLO: that of a "
            "data.yaml, which says where images of each split are, or of a folder of label files"
        )
    place = given.get("", root)
    yaml = _data_yaml(place)
    images = listed_images(yaml, files, reading) if yaml else images_by_folder(files)
    labels = files_by_stem(files.root, "txt", reading.leave_out)
    if place.is_dir() and place != files.root:
        labels |= files_by_stem(place.absolute(), "txt")
    splits = {
        split: _read_split(split, paths, labels, files.root) for split, paths in images.items()
    }
    splits = {split: found for split, found in splits.items() if found.images}
    if "train" not in splits:
        raise UserError(
            f"no image to train on in {files.root} has a label file: YOLO has labels/NAME.txt for "
            "images/NAME.jpg"
        )
    classes, origin = _classes(yaml, files, splits, reading.classes)
    notes = [line for split, found in splits.items() for line in _note_on_empty(split, found)]
    return Annotated(splits, classes, origin, notes)


def folder_of(file: Path) -> Path:
    """Return the folder in which images are looked for that a data.yaml belongs to."""
    return file.absolute().parent


def _data_yaml(place: Path) -> DataYaml | None:
    """Find the file that says where everything is; None without one.

    Args:
        place: A folder that may hold it, or the file.

    Raises:
        UserError: If there are several, or it is damaged.
    """
    if place.is_file():
        return read_data_yaml(place)
    paths = [place / e.name for e in scan_folder(place) if e.name.lower().endswith(_YAML)]
    found, problems = [], []
    for path in paths:
        try:
            found.append(read_data_yaml(path))
        except UserError as error:  # a file of something else
            problems.append(error)
    if len(found) > 1:
        raise UserError(
            f"{found[0].path} and {found[1].path} are both a data.yaml of YOLO: choose with "
            "data.annotations=FILE"
        )
    if not found and problems and any(path.stem == "data" for path in paths):
        raise problems[0]
    return found[0] if found else None


def _read_split(split: str, paths: Sequence[Path], labels: ByStem, root: Path) -> FoundSplit:
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path.parent, []).append(path)
    tally = Tally(f"the label files of {split}")
    places = {
        folder: _label_folder(split, folder, [p.stem for p in images], labels, root)
        for folder, images in by_folder.items()
    }
    known = {folder: place for folder, place in places.items() if place is not None}
    for folder in by_folder.keys() - known.keys():
        reason = "no image of its folder has a label file"
        tally.unannotated += [LeftOut(str(path), reason) for path in by_folder[folder]]
    if not known:
        return FoundSplit([], tally)
    base = common_parent(known)
    images = [
        _objects(path, path.relative_to(base).as_posix(), place / f"{path.stem}.txt", tally)
        for folder, place in known.items()
        for path in followed(by_folder[folder], "reading labels", len(by_folder[folder]))
    ]
    return FoundSplit(images, tally)


def _label_folder(
    split: str, folder: Path, stems: Sequence[str], labels: ByStem, root: Path
) -> Path | None:
    """Return the folder of the label files of a folder of images; None if there is none."""
    parts = list(folder.parts)
    places = [folder]
    for number in reversed(range(len(parts))):
        if parts[number].lower() in IMAGE_WORDS:
            beside = Path(*parts[:number], "labels", *parts[number + 1 :])
            places.insert(0, beside)
            break
    for place in places:
        names = labels.get(place) or (
            files_by_stem(place, "txt").get(place) if place.is_dir() else None
        )
        if names and not names.keys().isdisjoint(stems):
            return place
    found = find_folder(stems, labels, root=root, home=folder, split=split)
    return None if found is None else found.folder


def _objects(path: Path, name: str, file: Path, tally: Tally) -> Objects:
    """Read the labels of an image; one without a file has no object."""
    objects = Objects(path, name, None)
    if not file.exists():
        return objects
    for each in read_label_file(file):
        if each.box is None:
            reason = "a box that is empty or outside its image"
            tally.empty.append(LeftOut(f"{name} {each.line}", reason))
        else:
            shape: Any = None if each.polygon is None else [each.polygon]
            objects.add(each.box, each.label, shape=shape)
    return objects


def _classes(
    yaml: DataYaml | None,
    files: ImageFiles,
    splits: Mapping[str, FoundSplit],
    wanted: Sequence[str] | None,
) -> tuple[tuple[str, ...], str]:
    """Return the names of the classes, and where they are from.

    Raises:
        UserError: If a label is of none of them.
    """
    names, origin = _class_names(yaml, files, wanted)
    labels = [
        (label, objects)
        for found in splits.values()
        for objects in found.images
        for label in objects.labels
    ]
    highest, where = max(labels, key=lambda pair: pair[0], default=(-1, None))
    if not names:
        return tuple(map(str, range(highest + 1))), "their numbers, as nothing names them"
    if where is not None and highest >= len(names):
        raise UserError(
            f"the labels of {where.image} have the class {highest}, and {origin} has "
            f"{counted(len(names), 'class')}, from 0"
        )
    return names, origin


def _class_names(
    yaml: DataYaml | None, files: ImageFiles, wanted: Sequence[str] | None
) -> tuple[tuple[str, ...], str]:
    if wanted is not None:
        return tuple(wanted), "data.classes"
    if yaml is not None and yaml.names:
        return yaml.names, str(yaml.path)
    for name in _CLASS_LISTS:
        for folder in (files.root, files.root / "labels"):
            path = folder / name
            if path.is_file():
                lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
                return tuple(line.strip() for line in lines if line.strip()), str(path)
    return (), ""


def _note_on_empty(split: str, found: FoundSplit) -> list[str]:
    number = sum(not objects.boxes for objects in found.images)
    if not number:
        return []
    return [f"{counted(number, 'image')} of {split} without a label, taken for empty ones"]

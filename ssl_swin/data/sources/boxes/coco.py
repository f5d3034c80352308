"""Images with boxes as COCO has them: finding the JSON file of each split, and its images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_swin.data.sources.boxes.coco_file import (
    CocoFile,
    fill_objects,
    image_entries,
    read_coco_file,
)
from ssl_swin.data.sources.boxes.found import Annotated, FoundSplit
from ssl_swin.data.sources.boxes.objects import Objects, Tally
from ssl_swin.data.sources.boxes.places import ImageFiles, find_folder, located
from ssl_swin.data.sources.boxes.reading import BoxReading
from ssl_swin.data.sources.folder_tree import BOXES_ENDING, is_folder, is_left_out, scan_folder
from ssl_swin.data.sources.left_out import LeftOut, some
from ssl_swin.data.split_names import split_in_words, split_of_name
from ssl_swin.errors import UserError

# In the names of other files of COCO, where one of boxes is called instances_*.json.
_OTHERS = ("captions", "panoptic", "image_info", "stuff", "person_keypoints")


def read_coco(root: Path, reading: BoxReading, files: ImageFiles) -> Annotated:
    """Read the images and boxes of every split.

    JSON files are looked for in the folder itself and in the folders directly in it; their names,
    or those of their folders, say the split. Images are looked for by their names anywhere below.

    Args:
        root: The folder of the images, or the JSON file of all.
        reading: How to read it.
        files: The images on disk.

    Raises:
        UserError: If there is no such file, two are for one split, one is damaged, or none of its
            images is there.
    """
    given = {"": root} if root.is_file() else reading.given(root) or {"": root}
    folder = given.get("")
    if folder is not None and folder.is_dir():
        parsed = _find(folder, reading.leave_out)
    else:
        parsed = {split or "train": read_coco_file(path) for split, path in given.items()}
    classes = _classes(parsed, reading.classes)
    splits = {
        split: _read_split(split, file, files, classes, reading) for split, file in parsed.items()
    }
    origin = f"the categories of {next(iter(parsed.values())).path}"
    return Annotated(splits, classes, "data.classes" if reading.classes else origin)


def folder_of(file: Path) -> Path:
    """Return the folder in which images are looked for that a JSON file lists."""
    folder = file.absolute().parent
    return folder.parent if folder.name.lower() == "annotations" else folder


def _find(root: Path, leave_out: Sequence[str]) -> dict[str, CocoFile]:
    """Find the file of each split, "train" first."""
    found: dict[str, CocoFile] = {}
    problems: list[UserError] = []
    for path in _candidates(root, leave_out):
        try:
            file = read_coco_file(path)
        except UserError as error:  # a file of something else; told of where there is no other
            problems.append(error)
            continue
        split = split_in_words(path.stem) or (
            split_of_name(path.parent.name) if path.parent != root else None
        )
        if (other := found.setdefault(split or "train", file)) is not file:
            raise UserError(
                f"{other.path} and {path} may both have the boxes of {split or 'train'}: choose "
                "with data.annotations, as data.annotations={train: FILE, val: FILE}"
            )
    if not found and problems:
        raise problems[0]
    if not found:
        raise UserError(
            f"no JSON file in {root} or the folders directly in it: give the one with the boxes, "
            "as data.annotations=FILE"
        )
    return dict(sorted(found.items(), key=lambda item: item[0] != "train"))


def _candidates(root: Path, leave_out: Sequence[str]) -> list[Path]:
    entries = scan_folder(root)
    entries += [
        inner
        for entry in entries
        if is_folder(entry) and not is_left_out(entry.name, leave_out)
        for inner in scan_folder(Path(entry.path))
    ]
    paths = [
        Path(entry.path)
        for entry in entries
        if entry.name.lower().endswith(".json")
        and not entry.name.lower().endswith(BOXES_ENDING)
        and not is_left_out(Path(entry.path).relative_to(root).as_posix(), leave_out)
    ]
    instances = [path for path in paths if "instances" in path.stem.lower()]
    return instances or [path for path in paths if not path.stem.lower().startswith(_OTHERS)]


def _classes(parsed: Mapping[str, CocoFile], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes: those asked for, or those of the first file.

    Raises:
        UserError: If there are none, or a name that is asked for is no category.
    """
    first = next(iter(parsed.values()))
    if not first.names:
        raise UserError(f"{first.path} has no categories, so that its boxes have no class")
    if wanted is None:
        return tuple(first.names.values())
    known = {name for file in parsed.values() for name in file.names.values()}
    if missing := [name for name in wanted if name not in known]:
        raise UserError(
            f"data.classes has {missing[0]!r}, none of the categories of {first.path}: "
            f"{some(list(first.names.values()), 5)}"
        )
    return tuple(wanted)


def _labels(file: CocoFile, classes: Sequence[str], *, chosen: bool) -> dict[int, int | None]:
    """Return the label of every category of a file; None for one whose boxes are left out.

    Args:
        file: The file.
        classes: Names of the classes.
        chosen: Whether these were chosen among others.

    Raises:
        UserError: If boxes are of a category that is no class, and nobody chose.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    labels = {number: label_of.get(name) for number, name in file.names.items()}
    if not chosen:
        numbers = (annotation.get("category_id") for annotation in file.annotations)
        used = {number for number in numbers if type(number) is int}
        for number, label in labels.items():
            if label is None and number in used:
                raise UserError(
                    f"{file.path} has boxes of {file.names[number]!r}, which the file of another "
                    "split does not list: give all files the same categories, or choose with "
                    "data.classes"
                )
    return labels


def _read_split(
    split: str,
    file: CocoFile,
    files: ImageFiles,
    classes: Sequence[str],
    reading: BoxReading,
) -> FoundSplit:
    entries = image_entries(file)
    names = [name for name, _ in entries.values()]
    home = file.path.absolute().parent
    place = find_folder(names, files.by_folder, root=files.root, home=home, split=split)
    if place is None:
        raise UserError(
            f"none of the {len(names)} images of {file.path} is below {files.root}, the first is "
            f"{names[0]}: does the file belong to another set? Give the folder of its images as "
            "data.root, and the file as data.annotations"
        )
    tally = Tally(str(file.path))
    images: dict[object, Objects] = {}
    for number, (name, size_px) in entries.items():
        path = located(name, place, files.by_folder)
        if path is None:
            tally.without_image.append(LeftOut(name, f"{file.path} lists it, and it is not there"))
        else:
            images[number] = Objects(path, name, size_px)
    labels = _labels(file, classes, chosen=reading.classes is not None)
    fill_objects(file, images, labels, tally, masks=reading.masks)
    return FoundSplit(list(images.values()), tally)

"""Which images of a folder are which split and class, by the names of the folders in it."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ssl_swin.arguments import Name, checked
from ssl_swin.data.sources.folder_tree import Folder
from ssl_swin.data.sources.left_out import leaving_out, report_left_out, shown, some
from ssl_swin.data.sources.mask_names import is_named_like_masks
from ssl_swin.data.split_names import (
    IMAGE_WORDS,
    SPLIT_NAMES,
    read_split_names,
    split_in_words,
    split_of_name,
    words_of,
)
from ssl_swin.errors import UserError

# Names of numbered files, as "train_0001.jpg", "COCO_train2014_1.jpg", "0001_train.jpg": one such
# as "test pattern.jpg" means nothing.
_OF_A_SPLIT = (
    rb"^(?:(?:[^\n]*[_. -])?(?P<before>%(words)b)[_. -]?[0-9][^\n]*"
    rb"|[^\n]*[0-9][_. -](?P<after>%(words)b)\.[^.\n]+)$"
)
_FOR_TRAINING, _FOR_EVALUATION = (
    re.compile(_OF_A_SPLIT % {b"words": words}, re.IGNORECASE | re.MULTILINE)
    for words in (rb"train(?:ing)?", rb"val|valid|validation|test|testing|eval|dev")
)
MOST_LEFT_OUT = 3  # options in a message
UNLABELLED = "labels are left out"


@checked
@dataclass(frozen=True)
class Reading:
    """How a folder or file is read; what is not a matter of course is an option.

    Attributes:
        labelled: Whether names of folders and tars are classes.
        leave_out: Paths below the folder that are passed over; `*` stands for any characters.
        splits: Whether folders that are named like splits are splits.
        masks: Whether files and folders that are named like masks are masks; or the folder of the
            masks, see `data/sources/mask_folder.py`.
        plain_tars: Whether tars hold images alone, although they look like shards of samples.
    """

    labelled: bool = True
    leave_out: Sequence[str] = ()
    splits: bool = True
    masks: bool | Name = True
    plain_tars: bool = False


class Part(NamedTuple):
    """The images of one split.

    Attributes:
        base: Path of the folder that names of images are relative to.
        groups: Folders by the name of the class; loose images have the name "".
        classes_from: How the classes were found, or why there are none.
    """

    base: str
    groups: list[tuple[str, Folder]]
    classes_from: str
    has_stray_images: bool = False  # beside folders that would be classes without them

    @property
    def has_classes(self) -> bool:
        """Whether the names of the groups are classes."""
        return all(name for name, _ in self.groups)


def find_parts(tree: Folder, root: str, reading: Reading) -> dict[str, Part]:
    """Find the split and the class of every image.

    - Folders that are all named like splits are splits, also below a folder that holds nothing
      else, and below folders of classes that all hold the same splits.
    - In the folder of a split, or in the one folder where there are none, the sub-folders are
      classes if every image lies below one.

    Args:
        tree: The folder.
        root: Its path, for messages.
        reading: How to read it.

    Returns:
        The images by split; only "train" where no folder is named like a split.

    Raises:
        UserError: If some folders are named like splits and others are not, a split has two
            folders, images lie beside the folders of splits, or a folder of images to train on
            holds one for evaluation or a copy of the folders around it.
    """
    if not reading.splits:
        return {"train": _part(tree, root, reading, shown=tree)}
    folder, splits = _split_folders(tree, root, reading)
    if splits:
        return _split_parts(folder, splits, root, reading)
    if parts := _splits_in_classes(folder, reading):
        return parts
    _check_no_evaluation(folder, root)
    return {"train": _part(folder, root, reading, shown=tree)}


def _split_folders(
    tree: Folder, root: str, reading: Reading
) -> tuple[Folder, dict[str, list[Folder]]]:
    """Find the folder that holds split folders, and these by split; else the folder of images."""
    folder = tree
    found = _splits_in(folder, root, reading)
    while not found and len(folder.with_images()) == 1 and not len(folder.images):
        (only,) = folder.with_images()
        below, splits = _split_folders(only, root, reading)
        if splits or only.is_of_images:
            return below, splits
        break
    return folder, found


def _splits_in(folder: Folder, root: str, reading: Reading) -> dict[str, list[Folder]]:
    """Return the split folders in a folder, by split; none if no name is one of a split.

    Without labels, folders of other names are more images to train on.
    """
    folders = folder.with_images()
    names = read_split_names([other.name for other in folders])
    if not names.splits and not names.mixed:
        return {}
    if names.mixed:
        return _mixed_splits(folder, folders, list(names.mixed), root, reading)
    found: dict[str, list[Folder]] = {}
    for other in folders:
        found.setdefault(names.splits[other.name], []).append(other)
    for group in found.values():
        if len(group) > 1:
            raise UserError(
                f"{_at(root, folder)} has two folders for one split: "
                f"{', '.join(other.name for other in group)}. Join them, or leave one out: "
                f"{leaving_out(group[1].path)}"
            )
    _check_nothing_beside(folder, root)
    _check_no_empty_split(folder, root)
    return found


def _mixed_splits(
    folder: Folder, folders: list[Folder], mixed: list[str], root: str, reading: Reading
) -> dict[str, list[Folder]]:
    others = [other for other in folders if other.name not in mixed]
    known = {other.name: split_of_name(other.name) for other in folders}
    copies = [other for other in _copies(folders) if other.name not in mixed]
    if copies:
        holds = ", ".join(sub.name for sub in copies[0].with_images()[:4])
        raise UserError(
            f"{_at(root, folder)} has the folders {some([f.name for f in folders], 5)}, and "
            f"{copies[0].path} holds folders of the same names again ({holds}): a copy? Leave it "
            f"out: {leaving_out(copies[0].path)}"
        )
    masks = [other for other in others if is_named_like_masks(other.name)]
    others_can_train = all(known[name] for name in mixed) and not any(
        split_in_words(other.name) in ("val", "test") for other in others
    )
    if not reading.labelled and others_can_train and not masks:
        found: dict[str, list[Folder]] = {}
        for other in folders:
            found.setdefault(known[other.name] or "train", []).append(other)
        if all(len(group) == 1 for split, group in found.items() if split != "train"):
            _check_nothing_beside(folder, root)
            return found
    named = some(mixed, 5)
    rest = some([other.name for other in others], 5)
    example = (masks or others or folders)[0].path
    if masks:
        raise UserError(
            f"{_at(root, folder)} has folders of splits ({named}), and {masks[0].name}, which is "
            "named like masks, but no name in it pairs with an image of a folder beside it. Put "
            "masks beside the images of each split, as train/images and train/masks; or leave it "
            f"out: {leaving_out(example)}"
        )
    to_train = " or take them for more training images: --no-labels;" if others_can_train else ""
    raise UserError(
        f"{_at(root, folder)} has folders that are named like splits ({named}) and others "
        f"({rest}): what are the others? Leave them out: {leaving_out(example)};{to_train} or, if "
        "the names mean no splits, take all folders for classes: --no-splits"
    )


def _check_nothing_beside(folder: Folder, root: str) -> None:
    if len(folder.images):
        names = [os.fsdecode(bytes(name)) for name in folder.images]
        splits = ", ".join(other.name for other in folder.with_images())
        raise UserError(
            f"{_at(root, folder)} has images both in split folders ({splits}) and beside them "
            f"({some(names)}). Move those into one of the folders, or leave them out: "
            f"{_without_images(folder)}"
        )


def _check_no_empty_split(folder: Folder, root: str) -> None:
    for other in folder.folders:
        if split_of_name(other.name) and not other.num_images():
            raise UserError(
                f"no images in {_at(root, other)}{and_left_out(other)}. Leave it out: "
                f"{leaving_out(other.path)}"
            )


def _split_parts(
    folder: Folder, splits: dict[str, list[Folder]], root: str, reading: Reading
) -> dict[str, Part]:
    parts = {}
    every = [other for folders in splits.values() for other in folders]
    with_masks = any(below.is_of_images for other in every for below in other.folders)
    alike = all(map(_only_holds_images, every)) and not with_masks
    for split, folders in splits.items():
        for other in folders:
            if split == "train":
                _check_no_evaluation(other, root)
        if len(folders) > 1:  # without labels: what is named like no split is for training
            groups = [("", other) for other in folders]
            parts[split] = Part(folder.path, groups, UNLABELLED)
        else:
            parts[split] = _part(_unwrapped(folders[0], split, alike), root, reading, folders[0])
    return parts


def _only_holds_images(folder: Folder) -> bool:
    """Return whether a folder holds but a folder that is named like one of images."""
    folders = folder.with_images()
    return (
        len(folders) == 1
        and not len(folder.images)
        and set(words_of(folders[0].name)) <= IMAGE_WORDS
    )


def _unwrapped(folder: Folder, split: str, alike: bool) -> Folder:
    """Return the folder that holds the images of a split: train/train/ is train/.

    Args:
        folder: The folder of the split.
        split: The split.
        alike: Whether all splits hold but a folder "images", which is their only class then.
    """
    while len(folder.with_images()) == 1 and not len(folder.images):
        (only,) = folder.with_images()
        same = only.name.lower() == folder.name.lower() or split_of_name(only.name) == split
        if not same and not only.is_of_images and (alike or not _only_holds_images(folder)):
            break
        folder = only
    return folder


def _splits_in_classes(folder: Folder, reading: Reading) -> dict[str, Part]:
    """Return the splits where every class has folders for them: cats/train, cats/test."""
    classes = folder.with_images()
    names = [read_split_names([sub.name for sub in other.with_images()]) for other in classes]
    if len(folder.images) or not classes or not all(found.splits for found in names):
        return {}
    if any(len(other.images) for other in classes):
        return {}
    parts: dict[str, list[tuple[str, Folder]]] = {}
    for other, found in zip(classes, names, strict=True):
        for sub in other.with_images():
            name = other.name if reading.labelled else ""
            parts.setdefault(found.splits[sub.name], []).append((name, sub))
    found_in = f"the folders that each hold {' and '.join(sorted(parts))}"
    origin = found_in if reading.labelled else UNLABELLED
    return {split: Part(folder.path, groups, origin) for split, groups in parts.items()}


def _part(folder: Folder, root: str, reading: Reading, shown: Folder) -> Part:
    """Return the images of one folder as a part."""
    classes = folder.with_images()
    groups = [(other.name, other) for other in classes]
    where = _at(root, folder)
    if not reading.labelled:
        return Part(folder.path, [("", folder)], UNLABELLED)
    if not len(folder.images):
        _check_copies(folder, root)
        origin = f"the sub-folders of {where}"
        if len(classes) == 1:
            origin = f"the only sub-folder of {where} with images, {classes[0].name}"
            if len(classes[0].with_images()) > 1 and not len(classes[0].images):
                origin += f"; for those in it as classes, give {_at(root, classes[0])} itself"
        return Part(folder.path, groups, origin)
    if not classes:
        return Part(folder.path, [("", folder)], f"the images lie in {where} itself")
    names = [os.fsdecode(bytes(name)) for name in folder.images]
    verb = "lies" if len(names) == 1 else "lie"
    reason = (
        f"{some(names)} {verb} beside the sub-folders {some([sub.name for sub in classes])}; to "
        f"take those for classes: {_without_images(folder)}"
    )
    return Part(folder.path, [("", folder)], reason, has_stray_images=True)


def _check_no_evaluation(folder: Folder, root: str) -> None:
    """Refuse images to train on among which folders or files are named like for evaluation."""
    for other in folder.walk():
        _check_file_names(other, root)
    for other in (below for sub in folder.folders for below in sub.walk()):
        if split_of_name(other.name) in ("val", "test") and other.num_images():
            raise UserError(
                f"{_at(root, other)} is named like a split for evaluation, but lies among images "
                f"to train on. Leave it out: {leaving_out(other.path)}; or, if the name means no "
                "split: --no-splits"
            )


def _check_file_names(folder: Folder, root: str) -> None:
    """Refuse images of a folder that are numbered as those of several splits: val_1, train_1."""
    joined = b"\n".join(folder.images)
    if b"train" not in joined.lower():  # much faster than the patterns
        return
    for_training, evaluated = _FOR_TRAINING.search(joined), _FOR_EVALUATION.search(joined)
    if for_training is None or evaluated is None:
        return
    first, second = os.fsdecode(for_training[0]), os.fsdecode(evaluated[0])
    word = os.fsdecode(evaluated["before"] or evaluated["after"])
    starts = second.lower().startswith(word.lower())
    pattern = "/".join(filter(None, (folder.path, f"{word}*" if starts else f"*{word}*")))
    raise UserError(
        f"{_at(root, folder)} has images that are named like ones to train on ({first}) and like "
        f"ones for evaluation ({second}). Move them to folders train and val; or leave some out: "
        f"{leaving_out(pattern)}; or, if the names mean no splits: --no-splits"
    )


def _check_copies(folder: Folder, root: str) -> None:
    for other in _copies(folder.with_images()):
        raise UserError(
            f"{_at(root, other)} holds folders of the same names as those beside it "
            f"({some([sub.name for sub in other.with_images()])}): a copy? Leave it out: "
            f"{leaving_out(other.path)}; or take all without labels: --no-labels"
        )


def _copies(folders: Sequence[Folder]) -> list[Folder]:
    """Return those of some folders that hold the folders beside them again."""
    names = {_plain(folder.name) for folder in folders}
    return [folder for folder in folders if _holds_again(folder, names)]


def _holds_again(folder: Folder, names: set[str]) -> bool:
    below = {_plain(other.name) for other in folder.with_images()}
    beside = len(names) - 1
    return len((below - {_plain(folder.name)}) & names) >= max(2, (beside + 1) // 2)


def _plain(name: str) -> str:
    return SPLIT_NAMES.get(name.lower(), name.lower())


def _at(root: str, folder: Folder) -> str:
    return shown(f"{root.rstrip('/')}/{folder.path}" if folder.path else root)


def and_left_out(folder: Folder) -> str:
    """Return what a folder holds instead of images, for a message; "" if it is empty."""
    report = report_left_out([file for other in folder.walk() for file in other.left_out])
    return f" ({report})" if report else ""


def _without_images(folder: Folder) -> str:
    """Return the way to leave out the images that lie directly in a folder."""
    names = [os.fsdecode(bytes(name)) for name in folder.images]
    if len(names) > MOST_LEFT_OUT:
        return "move them to a folder of their own, and leave that out"
    return leaving_out(*(f"{folder.path}/{name}" if folder.path else name for name in names))

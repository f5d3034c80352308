"""Masks in a folder that is named, paired with images by their paths and names."""

import os
from pathlib import Path

import numpy as np

from ssl_swin.data.encoded import MASK
from ssl_swin.data.file_types import extension_of
from ssl_swin.data.sources.folder_tree import NO_FILE, Folder, read_folder
from ssl_swin.data.sources.left_out import LeftOut, shown
from ssl_swin.data.sources.mask_names import read_folder_name
from ssl_swin.data.sources.pair_report import Pairing, Pairs
from ssl_swin.data.sources.pairing import (
    MASK_EXTENSIONS,
    as_files,
    join_path,
    matched,
    stem_of,
    without_masks,
)
from ssl_swin.data.split_names import IMAGE_WORDS, split_of_name, words_of
from ssl_swin.errors import UserError
from ssl_swin.quoting import shell_path

_Place = tuple[str, ...]  # a path without what only says that images or masks are there


def take_folder(tree: Folder, root: Path, folder: Path) -> Folder:
    """Return the files of a folder of masks, which are then no images of the tree.

    Paths in the result are relative to `root`, also where they lead out of it.

    Args:
        tree: What `root` holds, which is changed.
        root: The folder of the images.
        folder: The folder of the masks, which may lie below `root`.

    Raises:
        UserError: If it is no folder, or cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--masks {shell_path(folder)} is no folder")
    path = os.path.relpath(folder.resolve(), root.resolve())
    for parent in tree.walk():
        for other in parent.folders:
            if other.path == path:
                parent.remove(other)
                return other
    masks = read_folder(folder)
    for below in masks.walk():
        below.path = join_path(path, below.path) if below.path else path
    return masks


def pair_with_folder(tree: Folder, root: Path, masks: Folder, pairs: Pairs, *, given: Path) -> None:
    """Pair the masks of a folder with images, in place of masks that were found by names.

    A mask has the name of its image, with endings as in use. Its path below the folder is that of
    the image below the other, but for folders that are named like ones of images or masks.

    Args:
        tree: The images, whose `members` are changed.
        root: Where they lie.
        masks: The masks, as `take_folder` returns them.
        pairs: Where the result is added.
        given: The folder of the masks as it was named.

    Raises:
        UserError: If no mask has the name of an image.
    """
    images: dict[_Place, list[Folder]] = {}
    for folder in tree.walk():
        folder.members.pop(MASK, None)
        if set(words_of(folder.name)) <= IMAGE_WORDS and folder.path:
            folder.is_of_images = True
        if len(folder.images):
            images.setdefault(_place(tree, folder), []).append(folder)
    num_files = num_paired = 0
    lost: list[LeftOut] = []
    for folder in masks.walk():
        targets: list[Folder | None] = [*images.get(_place(masks, folder), [])]
        targets = targets or [None]
        found = [matched(folder, target) for target in targets]
        for target, (files, _) in zip(targets, found, strict=True):
            if target is None:
                continue
            target.members[MASK] = _both(target.members.get(MASK), files)
            num_paired += int((files != NO_FILE).sum())
        lost += [file for file in found[0][1] if all(file in orphans for _, orphans in found)]
        num_files += len(folder.images)
    if not num_paired:
        raise UserError(_none_pairs(tree, root, given, lost))
    pairing = Pairing(
        MASK, shown(f"{given}/"), shown(f"{root}/"), num_files - len(lost), num_paired
    )
    pairs.pairings = [pairing, *(other for other in pairs.pairings if other.member != MASK)]
    pairs.without = without_masks(tree)
    pairs.left_out += lost


def take_same_names(tree: Folder, root: Path) -> Pairing:
    """Take each PNG and .npy with the name of another image beside it for the mask of that.

    Args:
        tree: Images and masks, whose `images` and `members` are changed.
        root: Where they lie.

    Raises:
        UserError: If there is none.
    """
    num_paired = 0
    for folder in tree.walk():
        names = [os.fsdecode(bytes(name)) for name in folder.images]
        may_be = [extension_of(name) in MASK_EXTENSIONS for name in names]
        images = {stem_of(name) for name, is_one in zip(names, may_be, strict=True) if not is_one}
        masks = {
            stem_of(name): join_path(folder.path, name)
            for name, is_one in zip(names, may_be, strict=True)
            if is_one and stem_of(name) in images
        }
        folder.members[MASK] = as_files([masks.get(stem_of(name), "") for name in names])
        taken = {*masks.values()}
        folder.keep_images(np.array([join_path(folder.path, n) not in taken for n in names], bool))
        num_paired += len(masks)
    if not num_paired:
        raise UserError(
            f"--masks {shell_path(root)}: no PNG or .npy there has the name of an image of another "
            "kind beside it, so that none is its mask. Give the folder of the masks"
        )
    files = f"the files *.{' and *.'.join(MASK_EXTENSIONS)}"
    return Pairing(MASK, files, shown(f"{root}/"), num_paired, num_paired)


def _place(top: Folder, folder: Folder) -> _Place:
    parts = folder.path.removeprefix(top.path).strip("/").split("/")
    named = (split_of_name(part) or part for part in parts if part)
    return tuple(part for part in named if not _says_nothing(part))


def _says_nothing(name: str) -> bool:
    """Return whether the name of a folder says but that images or masks lie there."""
    found = read_folder_name(name)
    return (found.rank >= 0 and not found.is_other and not found.rest) or (
        found.is_of_images and not found.beside_images
    )


def _both(first: "np.ndarray | None", second: np.ndarray) -> np.ndarray:
    """Return the files of both, those of the first where both have one."""
    if first is None:
        return second
    pairs = zip(first.tolist(), second.tolist(), strict=True)
    return np.array([one or other for one, other in pairs], dtype=np.bytes_)


def _none_pairs(tree: Folder, root: Path, given: Path, lost: list[LeftOut]) -> str:
    images = tree.image_paths()
    example = os.fsdecode(bytes(images[0])) if len(images) else "none"
    found = f"it holds {lost[0].name} ({lost[0].reason})" if lost else "it holds no PNG or .npy"
    return (
        f"--masks {shell_path(given)} has no mask of an image of {shown(str(root))}: {found}, and "
        f"an image is {example}. Give each mask the path and name of its image"
    )

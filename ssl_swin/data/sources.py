"""Where images to be packed come from: a folder, whatever its layout (L1)."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.archives import CifarBinarySource, SynsetTarsSource, is_cifar
from ssl_swin.data.records import (
    IMAGE_EXTENSIONS,
    SPLIT_NAMES,
    ImageRecord,
    Source,
    extension_of,
    fingerprint,
)
from ssl_swin.data.tar import group_samples, scan_tar
from ssl_swin.errors import UserError

__all__ = [
    "IMAGE_EXTENSIONS",
    "CifarBinarySource",
    "FolderSource",
    "ImageRecord",
    "Source",
    "SynsetTarsSource",
    "common_classes",
    "open_sources",
]


class FolderSource:
    """Image files in a folder and its sub-folders, hidden ones left out, in sorted order.

    If every image lies below a sub-folder, the names of the first-level sub-folders that hold
    images are the classes. An image that lies directly in `root` makes the source unlabelled.
    """

    def __init__(self, root: str | os.PathLike[str], labelled: bool = True) -> None:
        """Lists the files.

        Args:
            root: The folder.
            labelled: Whether sub-folders mean classes.

        Raises:
            UserError: If there is no image, or a folder cannot be read.
        """
        self.root = Path(root)
        paths = list(_image_files(self.root))
        if not paths:
            looked_for = " ".join(f".{extension}" for extension in IMAGE_EXTENSIONS)
            raise UserError(
                f"no images in {root} (looked for {looked_for} in it and its sub-folders)"
            )
        in_classes = labelled and all("/" in path for path in paths)
        folders = [path.partition("/")[0] for path in paths] if in_classes else []
        self.classes: tuple[str, ...] = tuple(sorted(set(folders)))
        self._labels = _labels(folders, self.classes)
        # An array: touching the strings of a list would copy its pages into every worker process.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.fingerprint = fingerprint(self.classes, b"\0".join(self._paths))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> ImageRecord:
        path = os.fsdecode(bytes(self._paths[index]))
        label = int(self._labels[index]) if self.classes else None
        return ImageRecord((self.root / path).read_bytes(), extension_of(path), label, path)


def open_sources(path: str | os.PathLike[str], labelled: bool = True) -> dict[str, Source]:
    """Recognises the layout of a data set on disk and opens its splits.

    CIFAR-10's binary version gives "train" and "val"; a folder of one tar per class gives "train";
    sub-folders that are all named like splits give a split each; any other folder is "train".

    Args:
        path: A folder, or CIFAR-10's archive.
        labelled: Whether folder and tar names mean classes.

    Returns:
        Sources by split: "train" always, "val" and "test" where the layout has them.

    Raises:
        UserError: If nothing is there, it holds no image or is damaged, or the splits' classes
            differ.
    """
    root = Path(path)
    if not root.exists():
        raise UserError(f"{root} does not exist. Give a folder of images")
    if root.is_file() or is_cifar(root):
        return {split: CifarBinarySource(root, split, labelled) for split in ("train", "val")}
    folders, files = _visible_entries(root)
    if not folders and _are_synset_tars(root, files):
        return {"train": SynsetTarsSource(root, labelled)}
    split_folders = _split_folders(root, folders, files)
    if not split_folders:
        return {"train": FolderSource(root, labelled)}
    sources: dict[str, Source] = {
        split: FolderSource(folder, labelled) for split, folder in split_folders.items()
    }
    common_classes(sources)
    return sources


def common_classes(sources: Mapping[str, Source]) -> tuple[str, ...]:
    """Gives the class names that all splits share.

    Raises:
        UserError: If two splits differ.
    """
    (first, source), *others = sources.items()
    for split, other in others:
        if other.classes != source.classes:
            raise UserError(
                f"the splits differ in their classes: {first} has {len(source.classes)}, {split} "
                f"has {len(other.classes)} ({_difference(first, source, split, other)}). Make the "
                "class folders equal, or leave the labels out: ssl-swin pack --no-labels"
            )
    return source.classes


def _image_files(folder: Path) -> Iterator[str]:
    """Walks in sorted order; yields paths relative to `folder`, with forward slashes."""
    for entry in _scan(folder):
        if entry.is_dir():
            if not _is_loop(entry):
                yield from (f"{entry.name}/{path}" for path in _image_files(Path(entry.path)))
        elif extension_of(entry.name) in IMAGE_EXTENSIONS:
            yield entry.name


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(entries, key=lambda entry: entry.name)


def _is_loop(entry: os.DirEntry[str]) -> bool:
    path = Path(entry.path)
    return entry.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _visible_entries(root: Path) -> tuple[list[str], list[str]]:
    entries = _scan(root)
    folders = [entry.name for entry in entries if entry.is_dir()]
    return folders, [entry.name for entry in entries if not entry.is_dir()]


def _are_synset_tars(root: Path, files: list[str]) -> bool:
    tars = [name for name in files if name.endswith(".tar")]
    if not tars or any(extension_of(name) in IMAGE_EXTENSIONS for name in files):
        return False
    samples = group_samples(scan_tar(root / tars[0]).members)
    if "index.json" in files or any(len(members) > 1 for _, members in samples):
        raise UserError(f"{root} holds shards already: train on them with data=shards")
    return True


def _split_folders(root: Path, folders: list[str], files: list[str]) -> dict[str, Path]:
    """Finds the folder of each split; none unless all folders are splits and one is train."""
    splits = [SPLIT_NAMES.get(name.lower()) for name in folders]
    if None in splits or "train" not in splits:
        return {}
    if len(set(splits)) < len(splits):
        raise UserError(f"{root} has two folders for one split: {', '.join(folders)}. Join them")
    loose = [name for name in files if extension_of(name) in IMAGE_EXTENSIONS]
    if loose:
        raise UserError(
            f"{root} has images both in split folders ({', '.join(folders)}) and beside them "
            f"({_some(loose)}). Move those into one of the folders"
        )
    return {split: root / name for split, name in zip(splits, folders, strict=True) if split}


def _labels(folders: list[str], classes: tuple[str, ...]) -> NDArray[np.int32]:
    label_of = {name: label for label, name in enumerate(classes)}
    return np.array([label_of[folder] for folder in folders], dtype=np.int32)


def _difference(first: str, source: Source, second: str, other: Source) -> str:
    only_first = _some(sorted(set(source.classes) - set(other.classes)))
    only_second = _some(sorted(set(other.classes) - set(source.classes)))
    return f"only in {first}: {only_first}; only in {second}: {only_second}"


def _some(names: list[str], most: int = 5) -> str:
    shown = ", ".join(names[:most]) or "none"
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown

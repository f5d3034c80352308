"""Image files in folders, by number."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.errors import UserError


class FolderDataset(ImageDataset):
    """Image files in a folder and its sub-folders, hidden ones left out, in sorted order.

    If every image lies below a sub-folder, the names of the first-level sub-folders that hold
    images are the classes. An image that lies directly in `root` makes the source unlabelled; such
    images come first.
    """

    def __init__(self, root: str | os.PathLike[str], labelled: bool = True) -> None:
        """List the files.

        Args:
            root: The folder of images.
            labelled: Whether sub-folders mean classes.

        Raises:
            UserError: If there is no image, or a folder cannot be read.
        """
        self.root = Path(root)
        groups = list(_groups(self.root))
        if not groups:
            looked_for = " ".join(f".{extension}" for extension in IMAGE_EXTENSIONS)
            raise UserError(
                f"no images in {root} (looked for {looked_for} in it and its sub-folders)"
            )
        in_classes = labelled and all(folder for folder, _ in groups)
        self.classes = tuple(folder for folder, _ in groups) if in_classes else ()
        lengths = [len(paths) for _, paths in groups]
        self._labels = np.repeat(np.arange(len(groups), dtype=np.int32), lengths)
        self._paths = np.concatenate([paths for _, paths in groups])
        self.fingerprint = fingerprint(self.classes, b"\0".join(self._paths))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> EncodedSample:
        path = os.fsdecode(bytes(self._paths[index]))
        label = int(self._labels[index]) if self.classes else None
        return EncodedSample.of_image(
            (self.root / path).read_bytes(), extension_of(path), label, path
        )

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every image, -1 for none; no image is read."""
        return self._labels.astype(np.int64) if self.classes else np.full(len(self), -1)

    def image_names(self) -> NDArray[np.bytes_]:
        """Paths relative to the folder, by image."""
        return self._paths


def scan_folder(folder: Path) -> list[os.DirEntry[str]]:
    """List what is not hidden, sorted by name.

    Raises:
        UserError: If the folder cannot be read.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(entries, key=lambda entry: entry.name)


def _groups(root: Path) -> Iterator[tuple[str, NDArray[np.bytes_]]]:
    """Yield loose images under the name "", then each first-level folder with its images.

    As arrays: millions of strings would take four times the memory, and touching them would copy
    their pages into every worker process.
    """
    entries = scan_folder(root)
    folders = [entry for entry in entries if entry.is_dir() and not _is_loop(entry)]
    loose = (entry.name for entry in entries if _is_image(entry))
    groups: list[tuple[str, Iterator[str]]] = [("", loose)]
    groups += [(entry.name, _image_files(Path(entry.path), f"{entry.name}/")) for entry in folders]
    for name, paths in groups:
        listed = np.array([os.fsencode(path) for path in paths])
        if len(listed):
            yield name, listed


def _image_files(folder: Path, prefix: str) -> Iterator[str]:
    """Walk in sorted order; yield paths relative to the root, with forward slashes."""
    for entry in scan_folder(folder):
        if _is_image(entry):
            yield prefix + entry.name
        elif entry.is_dir() and not _is_loop(entry):
            yield from _image_files(Path(entry.path), f"{prefix}{entry.name}/")


def _is_image(entry: os.DirEntry[str]) -> bool:
    return extension_of(entry.name) in IMAGE_EXTENSIONS and not entry.is_dir()


def _is_loop(entry: os.DirEntry[str]) -> bool:
    path = Path(entry.path)
    return entry.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())

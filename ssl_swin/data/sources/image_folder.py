"""Image files in folders, by number."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import IMAGE, EncodedSample, Member
from ssl_swin.data.file_sizes import file_sizes
from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of, extension_of_content
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.sources.folder_tree import NO_FILE, Folder, Names, read_folder
from ssl_swin.data.sources.left_out import report_left_out, some
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
        tree = read_folder(Path(root))
        check_has_images(tree, Path(root))
        in_classes = labelled and not len(tree.images)
        groups = [(other.name if in_classes else "", other) for other in _groups(tree)]
        self._set(Path(root), "", groups, ())

    @classmethod
    def of_groups(
        cls,
        root: Path,
        base: str,
        groups: Sequence[tuple[str, Folder]],
        members: Collection[str] | None = None,
    ) -> "FolderDataset":
        """Return the images of some folders that have been read.

        Args:
            root: The folder that was read.
            base: Path below `root` that names of images are relative to.
            groups: Folders with the name of their class; all without a class are named "".
            members: Names of the members to read; images without one of them are left out. None
                reads all members that there are.

        Raises:
            UserError: If no image has one of the members.
        """
        dataset = object.__new__(cls)
        dataset._set(root, base, groups, members)
        return dataset

    def _set(
        self,
        root: Path,
        base: str,
        groups: Sequence[tuple[str, Folder]],
        members: Collection[str] | None,
    ) -> None:
        self.root = root / base
        self._tree_root = root
        groups = [part for name, folder in groups for part in _in_order(name, folder, base)]
        paths = [folder.image_paths() for _, folder in groups]
        self.classes = tuple(dict.fromkeys(name for name, _ in groups if name))
        label_of = {name: label for label, name in enumerate(self.classes)}
        labels = [label_of.get(name, 0) for name, _ in groups]
        self._labels = np.repeat(np.array(labels, np.int32), [len(names) for names in paths])
        prefix = f"{base}/".encode(errors="surrogateescape") if base else b""
        self._paths = _concatenated([_without_prefix(names, prefix) for names in paths])
        self._members = _member_paths([folder for _, folder in groups], members)
        self._keep_complete(members)
        listing = b"\0".join(self._paths)
        for name, files in sorted(self._members.items()):
            listing += b"\0\0" + name.encode() + b"\0" + b"\0".join(files)
        self.fingerprint = fingerprint(self.classes, listing)

    def _keep_complete(self, members: Collection[str] | None) -> None:
        """Leave out images that lack a member that is asked for."""
        if members is None or not self._members:
            return
        complete = np.logical_and.reduce([files != NO_FILE for files in self._members.values()])
        if not complete.any():
            raise UserError(f"no image of {self.root} has {' and '.join(self._members)}")
        self._paths, self._labels = self._paths[complete], self._labels[complete]
        self._members = {name: files[complete] for name, files in self._members.items()}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> EncodedSample:
        path = os.fsdecode(bytes(self._paths[index]))
        label = int(self._labels[index]) if self.classes else None
        data = (self.root / path).read_bytes()
        extension = extension_of(path)
        if extension not in IMAGE_EXTENSIONS:
            extension = extension_of_content(data)
        sample = EncodedSample.of_image(data, extension, label, path)
        for name, files in self._members.items():
            if file := os.fsdecode(bytes(files[index])):
                content = (self._tree_root / file).read_bytes()
                sample = sample.with_member(name, Member(content, extension_of(file)))
        return sample

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that a sample may hold, "image" first."""
        return (IMAGE, *self._members)

    def labels(self) -> NDArray[np.int64]:
        """Return the label of every image, -1 for none; no image is read."""
        return self._labels.astype(np.int64) if self.classes else np.full(len(self), -1)

    def image_sizes(self) -> NDArray[np.int64] | None:
        """Return the bytes of every image's file; None of more than 100,000 files."""
        paths = (self.root / os.fsdecode(bytes(path)) for path in self._paths)
        return file_sizes(len(self), paths)

    def image_names(self) -> NDArray[np.bytes_]:
        """Paths relative to the folder, by image."""
        return self._paths


def check_has_images(tree: Folder, root: Path) -> None:
    """Refuse a folder without images, and say what it holds instead.

    Raises:
        UserError: If there is no image.
    """
    if tree.num_images():
        return
    left_out = [file for folder in tree.walk() for file in folder.left_out]
    tars = [file.name for file in left_out if extension_of(file.name) == "tar"]
    if any("/" in name for name in tars):
        raise UserError(
            f"no images in {root} and its sub-folders, but {len(tars)} tars ({some(tars)}): give "
            f"one folder of tars: {root / tars[0].rpartition('/')[0]}"
        )
    report = report_left_out(left_out)
    raise UserError(f"no images in {root} and its sub-folders{f'; {report}' if report else ''}")


def _groups(tree: Folder) -> list[Folder]:
    return [tree] if len(tree.images) else tree.with_images()


def _in_order(name: str, folder: Folder, base: str) -> list[tuple[str, Folder]]:
    """Return the folder that names are relative to as its loose images, then its sub-folders."""
    if name or folder.path != base or not len(folder.images):
        return [(name, folder)]
    alone = Folder(
        folder.path, folder.images, folder.boxes, [], [], [], members=dict(folder.members)
    )
    return [(name, alone), *((name, other) for other in folder.with_images())]


def _member_paths(
    folders: Sequence[Folder], members: Collection[str] | None
) -> Mapping[str, Names]:
    found = sorted(
        {name for folder in folders for below in folder.walk() for name in below.members}
    )
    return {
        name: _concatenated([folder.member_paths(name) for folder in folders])
        for name in found
        if members is None or name in members
    }


def _concatenated(arrays: Sequence[Names]) -> Names:
    return np.concatenate(arrays) if arrays else np.array([], np.bytes_)


def _without_prefix(names: Names, prefix: bytes) -> Names:
    return np.array([name[len(prefix) :] for name in names]) if prefix and len(names) else names

"""What a folder holds, read in one walk: images, files beside them, and what is left out."""

import fnmatch
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.sources.left_out import (
    HEAD_BYTES,
    LeftOut,
    is_image_content,
    is_known_image,
    is_no_image,
    is_no_image_content,
    is_system_name,
    leaving_out,
    must_be_opened,
    shown,
    why_left_out,
)
from ssl_swin.errors import UserError

BOXES_ENDING = ".boxes.json"
NO_FILE = b""
MOST_LEVELS = 38  # of folders in folders; systems follow 40 links

Names = NDArray[np.bytes_]


@dataclass
class Folder:
    """A folder and all below it.

    Names of files are arrays: millions of strings would take four times the memory, and touching
    them would copy their pages into every worker process.

    Attributes:
        path: Path relative to the folder that was read, with forward slashes; "" for itself.
        images: Names of the image files that lie directly in it, sorted.
        boxes: Names of the files of boxes that lie directly in it, sorted.
        folders: The folders in it, sorted by name.
        places: Number of images that come before each of `folders` by name.
        left_out: Other files that lie directly in it, without those that are obviously no images.
        members: Paths of what belongs to `images`, by the name of the member; b"" for none.
        is_of_images: Whether its name says only that it holds the images that masks belong to.
    """

    path: str
    images: Names
    boxes: Names
    folders: list["Folder"]
    places: list[int]
    left_out: list[LeftOut]
    members: dict[str, Names] = field(default_factory=dict)
    is_of_images: bool = False

    @property
    def name(self) -> str:
        """Name of the folder itself."""
        return self.path.rpartition("/")[2]

    def num_images(self) -> int:
        """Return the number of images in it and below."""
        return len(self.images) + sum(folder.num_images() for folder in self.folders)

    def with_images(self) -> list["Folder"]:
        """Return the folders directly in it that hold images, at any depth."""
        return [folder for folder in self.folders if folder.num_images()]

    def walk(self) -> Iterator["Folder"]:
        """Yield the folder and all below it, those above first."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def remove(self, other: "Folder") -> None:
        """Take a folder out that lies directly in this one."""
        number = next(i for i, folder in enumerate(self.folders) if folder is other)
        del self.folders[number], self.places[number]

    def keep_images(self, kept: NDArray[np.bool_]) -> None:
        """Take out the images that lie directly in it and are not to be kept."""
        before = np.concatenate([[0], np.cumsum(kept)])
        self.places = [int(before[place]) for place in self.places]
        self.images = self.images[kept]
        self.members = {name: paths[kept] for name, paths in self.members.items()}

    def image_paths(self) -> Names:
        """Return the paths of all images, in the order of a walk sorted by name."""
        return _joined(list(self._pieces(None)))

    def member_paths(self, member: str) -> Names:
        """Return the paths of a member by image, in the same order; b"" where there is none."""
        return _joined(list(self._pieces(member)))

    def _pieces(self, member: str | None) -> Iterator[Names]:
        paths = self._own_paths(member)
        start = 0
        for place, folder in zip(self.places, self.folders, strict=True):
            yield paths[start:place]
            start = place
            yield from folder._pieces(member)
        yield paths[start:]

    def _own_paths(self, member: str | None) -> Names:
        if member is not None:
            return self.members.get(member, np.full(len(self.images), NO_FILE, "S1"))
        return _below(self.path, self.images)


def read_folder(root: Path, leave_out: Sequence[str] = ()) -> Folder:
    """Read what a folder holds, in one walk.

    Hidden files and folders, those that systems make for themselves (`@eaDir`, `$RECYCLE.BIN`) and
    links to a folder above are passed over. Only a file whose ending says nothing is opened, to see
    whether its content is an image.

    Args:
        root: The folder.
        leave_out: Paths below `root` to pass over; `*` stands for any characters.

    Raises:
        UserError: If a folder cannot be read, or an entry of `leave_out` fits nothing.
    """
    unused = set(leave_out)
    tree = _read(root, "", tuple(leave_out), unused)
    if unused:
        names = ", ".join(entry.name for entry in scan_folder(root)[:10])
        raise UserError(
            f"nothing in {root} is called {sorted(unused)[0]!r}, which was to be left out. Give "
            f"paths below it, or patterns such as '*/previews'; it holds: {names or 'nothing'}"
        )
    return tree


def scan_folder(folder: Path) -> list[os.DirEntry[str]]:
    """List what is neither hidden nor made by a system for itself, sorted by name.

    Raises:
        UserError: If the folder cannot be read.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if not is_system_name(entry.name)]
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(entries, key=attrgetter("name"))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_left_out(path: str, leave_out: Sequence[str]) -> bool:
    """Return whether a path below the folder is one to pass over."""
    return any(fnmatch.fnmatchcase(path, pattern.strip("/")) for pattern in leave_out)


def _read(folder: Path, path: str, leave_out: tuple[str, ...], unused: set[str]) -> Folder:
    if path.count("/") >= MOST_LEVELS:
        start = "/".join(path.split("/")[:4])
        raise UserError(
            f"{shown(start)}/... holds folders in folders, {MOST_LEVELS} levels deep: do links "
            f"lead in a circle? Leave it out: {leaving_out(path.split('/')[0])}"
        )
    images: list[str] = []
    boxes: list[str] = []
    found = Folder(path, _names([]), _names([]), [], [], [])
    prefix = f"{path}/" if path else ""
    for entry in scan_folder(folder):
        name = entry.name
        if leave_out and (fitting := [p for p in leave_out if is_left_out(prefix + name, [p])]):
            unused.difference_update(fitting)
        elif is_folder(entry):
            if not _is_loop(entry):
                found.folders.append(_read(Path(entry.path), prefix + name, leave_out, unused))
                found.places.append(len(images))
        elif name.lower().endswith(BOXES_ENDING):
            boxes.append(name)
        elif (kind := _kind(entry)) == "image":
            images.append(name)
        elif kind == "other":
            found.left_out.append(LeftOut(prefix + name, why_left_out(name)))
    found.images, found.boxes = _names(images), _names(boxes)
    return found


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "image", "other", or "nothing" for what is obviously no image."""
    if is_known_image(entry.name):
        return "other" if _is_special(entry) else "image"
    if is_no_image(entry.name):
        return "nothing"
    if not must_be_opened(entry.name):
        return "other"
    head = _head(entry)
    if is_image_content(head):
        return "image"
    return "nothing" if is_no_image_content(head) else "other"


def _head(entry: os.DirEntry[str]) -> bytes:
    if _is_special(entry):  # opening a pipe would wait for ever
        return b""
    try:
        with open(entry.path, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Return whether it is a pipe, a socket or a device; a link that leads nowhere is not."""
    try:
        if entry.is_file() or not os.path.exists(entry.path):
            return False
        return not stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False


def _is_loop(entry: os.DirEntry[str]) -> bool:
    path = Path(entry.path)
    return entry.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _names(names: list[str]) -> Names:
    listed = os.fsencode("\0".join(names)).split(b"\0") if names else []
    return np.array(listed, dtype=np.bytes_)


def _below(path: str, names: Names) -> Names:
    if not path or not len(names):
        return names
    joined: Names = np.char.add(os.fsencode(path) + b"/", names)
    return joined


def _joined(pieces: list[Names]) -> Names:
    pieces = [piece for piece in pieces if len(piece)]
    return np.concatenate(pieces) if pieces else _names([])

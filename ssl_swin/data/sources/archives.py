"""Images in tars, read in place: ImageNet as it is distributed, and other tars of images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.shards.tar import TarMember, scan_tar
from ssl_swin.errors import UserError


class TarPart(NamedTuple):
    """A tar, which may lie inside another."""

    name: str  # without ".tar"
    path: Path  # of the file
    start: int = 0  # of the tar in that file
    num_bytes: int | None = None  # None: up to the end of the file


class TarDataset(ImageDataset):
    """The images of some tars, in the order in which they lie there.

    Opening the source reads the header of every image once; the list is kept in arrays.
    """

    def __init__(self, parts: Sequence[TarPart], labelled: bool = True) -> None:
        """List the members of every tar.

        Args:
            parts: The tars.
            labelled: Whether each tar is a class, named like the tar.

        Raises:
            UserError: If there is no image, or a tar is damaged.
        """
        self._parts = sorted(parts)
        names = tuple(part.name for part in self._parts)
        self.classes = names if labelled else ()
        bar = tqdm(self._parts, desc="reading tar headers", unit="tar", disable=None)
        self._members = [_image_members(part) for part in bar]
        self._ends = np.cumsum([len(members) for members in self._members], dtype=np.int64)
        if not len(self):
            folders = sorted({str(part.path.parent) for part in parts})
            raise UserError(f"no images in the tars of {', '.join(folders)}")
        listing = b"".join(members.tobytes() for members in self._members)
        self.fingerprint = fingerprint((*names, str(labelled)), listing)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> EncodedSample:
        number = int(np.searchsorted(self._ends, index, side="right"))
        part, members = self._parts[number], self._members[number]
        member = members[index - self._ends[number]]  # negative: counts from the tar's end
        name = os.fsdecode(bytes(member["name"]))
        with part.path.open("rb") as file:
            file.seek(int(member["offset"]))
            data = file.read(int(member["size"]))
        label = number if self.classes else None
        return EncodedSample.of_image(data, extension_of(name), label, f"{part.name}.tar/{name}")

    def image_names(self) -> NDArray[np.bytes_]:
        """Names inside the tars, by image."""
        return np.concatenate([members["name"] for members in self._members])


def tar_parts(paths: Sequence[Path]) -> list[TarPart]:
    """Return the parts for tars that lie in a folder."""
    return [TarPart(path.stem, path) for path in paths]


def inner_tars(path: Path) -> list[TarPart]:
    """List the tars in a tar, such as the one per class in ILSVRC2012_img_train.tar.

    Returns:
        None of them if it holds no tars.

    Raises:
        UserError: If the outer tar is damaged.
    """
    return [
        TarPart(Path(member.name).stem, path, member.offset, member.size)
        for member in _members(TarPart(path.stem, path))
        if extension_of(member.name) == "tar"
    ]


def _image_members(part: TarPart) -> NDArray[Any]:
    images = [
        (os.fsencode(name), offset, size)
        for name, offset, size in _members(part)
        if extension_of(name) in IMAGE_EXTENSIONS and not os.path.basename(name).startswith(".")
    ]
    width = max((len(name) for name, _, _ in images), default=1)
    return np.array(images, dtype=[("name", f"S{width}"), ("offset", "<i8"), ("size", "<i8")])


def _members(part: TarPart) -> list[TarMember]:
    scan = scan_tar(part.path, start=part.start, num_bytes=part.num_bytes)
    if scan.problem is not None:
        inside = f" ({part.name}.tar in it)" if part.start else ""
        raise UserError(f"{part.path}{inside}: {scan.problem}. Copy or download it anew")
    return scan.members

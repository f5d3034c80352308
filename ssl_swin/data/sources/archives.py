"""Images in tars, read in place: ImageNet as it is distributed, and other tars of images."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import (
    LABEL_EXTENSION,
    MASK,
    EncodedSample,
    member_extension,
    member_name,
)
from ssl_swin.data.file_types import (
    IMAGE_EXTENSIONS,
    container_of_content,
    extension_of,
    extension_of_content,
)
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.shards.tar import TarMember, group_samples, scan_tar
from ssl_swin.data.sources.left_out import (
    HEAD_BYTES,
    LeftOut,
    is_image_content,
    is_known_image,
    is_no_image,
    is_no_image_content,
    is_system_folder,
    is_system_name,
    must_be_opened,
    report_left_out,
    why_left_out,
)
from ssl_swin.data.split_names import split_of_name
from ssl_swin.display.work import followed
from ssl_swin.errors import UserError
from ssl_swin.quoting import shell_path


class TarPart(NamedTuple):
    """A tar, which may lie inside another."""

    name: str  # without ".tar"
    path: Path  # of the file
    start: int = 0  # of the tar in that file
    num_bytes: int | None = None  # None: up to the end of the file


class TarDataset(ImageDataset):
    """The images of some tars, in the order in which they lie there.

    Opening the source reads the header of every image once; the list is kept in arrays.

    Attributes:
        classes_from: Where the classes are from, or why there are none.
        left_out: Files that are not taken, without those that are obviously no images.
    """

    def __init__(
        self, parts: Sequence[TarPart], labelled: bool = True, *, splits: bool = True
    ) -> None:
        """List the members of every tar.

        Args:
            parts: The tars.
            labelled: Whether each tar is a class, named like the tar.
            splits: Whether folders in the tars that are named like splits are splits, which is
                refused because all images of a tar are one split.

        Raises:
            UserError: If there is no image, a tar is damaged, or it holds images for evaluation.
        """
        self._parts = sorted(parts)
        names = tuple(part.name for part in self._parts)
        self.classes = names if labelled else ()
        shown = followed(self._parts, "reading tar headers", len(self._parts), "tars")
        listed = [_list_images(part) for part in shown]
        self._members = [members for members, _ in listed]
        self.left_out = [file for _, left_out in listed for file in left_out]
        self._ends = np.cumsum([len(members) for members in self._members], dtype=np.int64)
        if not len(self):
            folders = sorted({str(part.path.parent) for part in parts})
            report = report_left_out(self.left_out)
            raise UserError(
                f"no images in the tars of {', '.join(folders)}{f'; {report}' if report else ''}"
            )
        in_folders = [_folders_in(members) for members in self._members]
        if splits and not labelled:
            _check_no_splits(self._parts, in_folders)
        self.classes_from = _origin(self._parts, labelled, in_folders)
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
        extension = extension_of(name)
        if extension not in IMAGE_EXTENSIONS:
            extension = extension_of_content(data)
        return EncodedSample.of_image(data, extension, label, f"{part.name}.tar/{name}")

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


def are_samples(path: Path) -> bool:
    """Return whether a tar is a shard of samples, by what only shards have.

    That is a label (`.cls`) in any sample, or in most of them a mask, or another file beside the
    image of the same name: `0.json`, `0.depth.png` beside `0.jpg`. `0.jpg` and `0.edited.jpg` are
    two images.
    """
    samples = [set(extensions) for _, extensions in group_samples(scan_tar(path).members)]
    if any(LABEL_EXTENSION in sample for sample in samples):
        return True
    with_images = [sample for sample in samples if sample & set(IMAGE_EXTENSIONS)]
    return 2 * sum(map(_is_more_than_images, with_images)) > len(with_images)


def _is_more_than_images(sample: set[str]) -> bool:
    images = sample & set(IMAGE_EXTENSIONS)
    kinds = {member_extension(extension) for extension in sample}
    names = {member_name(extension) for extension in sample - images}
    return MASK in names or (bool(names) and not kinds <= images)


def check_is_tar(path: Path) -> None:
    """Refuse a file that is called a tar and is something else.

    Raises:
        UserError: If it is compressed, or another kind of archive.
    """
    if container_of_content(_head(path)) is not None:
        refuse_file(path)


def refuse_file(path: Path) -> NoReturn:
    """Say what a file is that is no tar and no table, and what to do with it.

    Raises:
        UserError: Always.
    """
    head = _head(path)
    container = container_of_content(head)
    if container is not None:
        title, command = container
        way = f"{command} {shell_path(path)}"
        if title.endswith("archive"):
            raise UserError(
                f"{path} is a {title}, which is not read in place. Unpack it ({way}), and give the "
                "folder"
            )
        raise UserError(
            f"{path} is compressed ({title}), and images are read in place. Unpack it first: {way}"
        )
    if head.startswith(b"PAR1"):
        raise UserError(f"{path} is a parquet file: give it the ending .parquet")
    if is_known_image(path.name) or is_image_content(head):
        raise UserError(f"{path} is one image. Give the folder that it lies in")
    raise UserError(
        f"{path} is neither a folder of images nor a tar, a parquet file or the binary archive of "
        "CIFAR. What can be given: ssl-swin pack --help"
    )


def _head(path: Path, offset: int = 0, num_bytes: int = HEAD_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(min(num_bytes, HEAD_BYTES))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _list_images(part: TarPart) -> tuple[NDArray[Any], list[LeftOut]]:
    """Return where the images of a tar lie, and what is left out."""
    images, left_out = [], []
    for name, offset, size in _members(part):
        *folders, own_name = name.split("/")
        if is_system_name(own_name) or any(map(is_system_folder, folders)):
            continue
        known, opened = is_known_image(name), must_be_opened(name)
        head = _head(part.path, offset, size) if opened else b""
        if known or (opened and is_image_content(head)):
            images.append((os.fsencode(name), offset, size))
        elif not is_no_image(name) and not is_no_image_content(head):
            left_out.append(LeftOut(f"{part.name}.tar/{name}", why_left_out(name)))
    width = max((len(name) for name, _, _ in images), default=1)
    listed = np.array(images, dtype=[("name", f"S{width}"), ("offset", "<i8"), ("size", "<i8")])
    return listed, left_out


def _folders_in(members: NDArray[Any]) -> set[str]:
    """Return the paths of the folders in a tar that hold images."""
    return {os.fsdecode(os.path.dirname(bytes(name))) for name in members["name"]}


def _check_no_splits(parts: Sequence[TarPart], in_folders: Sequence[set[str]]) -> None:
    for part, folders in zip(parts, in_folders, strict=True):
        for folder in sorted(folders):
            if any(split_of_name(name) in ("val", "test") for name in folder.split("/")):
                raise UserError(
                    f"{part.path} holds the folder {folder}, which is named like a split for "
                    "evaluation, and all images of a tar are one split. Unpack it, and give the "
                    "folder; or, if the name means no split: --no-splits"
                )


def _origin(parts: Sequence[TarPart], labelled: bool, in_folders: Sequence[set[str]]) -> str:
    if labelled:
        return f"the tars in {parts[0].path}" if parts[0].start else "one for each tar"
    if any(folder not in ("", ".") for folders in in_folders for folder in folders):
        return "images in a tar have none; for its folders as classes, unpack it"
    return "images in a tar have none"


def _members(part: TarPart) -> list[TarMember]:
    scan = scan_tar(part.path, start=part.start, num_bytes=part.num_bytes)
    if scan.problem is not None:
        inside = f" ({part.name}.tar in it)" if part.start else ""
        raise UserError(f"{part.path}{inside}: {scan.problem}. Copy or download it anew")
    return scan.members

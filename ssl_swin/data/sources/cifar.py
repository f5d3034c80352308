"""CIFAR-10 and CIFAR-100 read from the archives that they are distributed in."""

import io
import itertools
import lzma
import os
import tarfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.errors import UserError

_SHAPE = (3, 32, 32)  # channels, rows, columns
_PIXEL_BYTES = 3 * 32 * 32
_MOST_BYTES = 1 << 28  # of a file in an archive; the largest, train.bin of CIFAR-100, has 154 MB
_NUM_LOOKED_AT = 16  # files of an archive
_PICKLES = {"batches.meta": "CIFAR-10", "meta": "CIFAR-100"}


class _Layout(NamedTuple):
    """How one of the data sets is laid out; each row is labels and the planes of one image."""

    title: str
    archive: str
    splits: Mapping[str, tuple[str, ...]]
    class_names: str  # a text file, one name per line
    num_labels: int  # bytes before the pixels; the last of them is the class

    @property
    def row_bytes(self) -> int:
        return self.num_labels + _PIXEL_BYTES

    def needed(self, split: str) -> tuple[str, ...]:
        return (*self.splits[split], self.class_names)


_LAYOUTS = (
    _Layout(
        "CIFAR-10",
        "cifar-10-binary.tar.gz",
        {
            "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
            "val": ("test_batch.bin",),
        },
        "batches.meta.txt",
        1,
    ),
    _Layout(
        "CIFAR-100",
        "cifar-100-binary.tar.gz",
        {"train": ("train.bin",), "val": ("test.bin",)},
        "fine_label_names.txt",
        2,  # coarse, then fine
    ),
)


class CifarBinaryDataset(ImageDataset):
    """One split of the "binary version" of CIFAR-10 or CIFAR-100 (fine labels).

    Each row of its files is the label and the planes of one 32 x 32 px image
    (https://www.cs.toronto.edu/~kriz/cifar.html); images are returned as PNG. "val" is what the
    authors call test.
    """

    def __init__(
        self, path: str | os.PathLike[str], split: str = "train", labelled: bool = True
    ) -> None:
        """Read the whole split to memory (150 MB for "train").

        Args:
            path: `cifar-10-binary.tar.gz`, `cifar-100-binary.tar.gz`, or the folder in one.
            split: "train" or "val".
            labelled: Whether to return labels.

        Raises:
            UserError: If it is not the binary version, or is damaged.
        """
        layout, files = _read_split(Path(path), split)
        content = b"".join(files[name] for name in layout.splits[split])
        names = tuple(files[layout.class_names].decode().split())
        rows = np.frombuffer(content, np.uint8).reshape(-1, layout.row_bytes)
        self._labels = rows[:, layout.num_labels - 1]
        self._pixels = rows[:, layout.num_labels :]
        if self._labels.max() >= len(names):
            raise UserError(
                f"{path} has labels beyond the {len(names)} names in {layout.class_names}"
            )
        self.classes = names if labelled else ()
        self._split = split
        self.fingerprint = fingerprint(self.classes, content)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> EncodedSample:
        planes = self._pixels[index].reshape(_SHAPE)
        png = io.BytesIO()
        Image.fromarray(planes.transpose(1, 2, 0)).save(png, "PNG")
        label = int(self._labels[index]) if self.classes else None
        return EncodedSample.of_image(png.getvalue(), "png", label, f"{self._split}[{index}]")


def is_cifar(folder: Path) -> bool:
    """Return whether a folder is one of the data sets unpacked, also as pickles."""
    names = (*(layout.class_names for layout in _LAYOUTS), "batches.meta")
    return any((folder / name).is_file() for name in names)


def is_cifar_archive(path: Path) -> bool:
    """Return whether a file is one of the archives, also of pickles, by its name or first files."""
    if "cifar" in path.name.lower():
        return True
    known = {
        name for layout in _LAYOUTS for split in layout.splits for name in layout.needed(split)
    }
    try:
        with tarfile.open(path) as archive:
            first = itertools.islice(archive, _NUM_LOOKED_AT)
            names = {os.path.basename(member.name) for member in first}
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError):
        return False
    return not names.isdisjoint(known | {"batches.meta"})


def _read_split(path: Path, split: str) -> tuple[_Layout, dict[str, bytes]]:
    """Find out which data set it is, and read the files of one split and the class names."""
    names = {name for layout in _LAYOUTS for name in layout.needed(split)}
    files = _read_files(path, names | _PICKLES.keys())
    layout = max(_LAYOUTS, key=lambda layout: len(files.keys() & layout.needed(split)))
    missing = [name for name in layout.needed(split) if name not in files]
    if len(missing) == len(layout.needed(split)):
        _refuse(path, files)
    if missing:
        raise UserError(
            f"{path} is not the binary version of {layout.title}: it lacks {', '.join(missing)}. "
            f"Give a folder of images, or {layout.archive}"
        )
    for name in layout.splits[split]:
        if not files[name] or len(files[name]) % layout.row_bytes:
            raise UserError(
                f"{path}: {name} has {len(files[name])} bytes, not a multiple of "
                f"{layout.row_bytes}: truncated. Download it anew"
            )
    return layout, files


def _refuse(path: Path, files: Collection[str]) -> None:
    title = next((title for name, title in _PICKLES.items() if name in files), None)
    if title is None:
        raise UserError(
            f"{path} holds nothing that packing knows. Give a folder of images, a tar of images "
            f"without compression, or {' or '.join(layout.archive for layout in _LAYOUTS)}"
        )
    archive = next(layout.archive for layout in _LAYOUTS if layout.title == title)
    raise UserError(
        f"{path} is the pickle version of {title}, and unpickling runs whatever code its maker "
        f"put there. Take the binary version, {archive}"
    )


def _check_size(path: Path, member: tarfile.TarInfo) -> None:
    """Refuse to unpack what cannot be a file of the set."""
    if member.size > _MOST_BYTES:
        raise UserError(
            f"{path} is no archive of CIFAR: {member.name} in it has {member.size} bytes"
        )


def _read_files(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Read those of `names` that lie in a folder, or anywhere in an archive."""
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in names if (path / name).is_file()}
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and (name := os.path.basename(member.name)) in names:
                    _check_size(path, member)
                    files[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = str(error).partition(" - method")[0].partition("\n")[0].rstrip(":")
        raise UserError(
            f"{path} cannot be read as an archive ({reason}). Download it anew, or give a "
            "folder of images"
        ) from error
    return files

"""Data sets read from the archives that they are distributed in, without unpacking them (L1)."""

import io
import os
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ssl_swin.data.records import IMAGE_EXTENSIONS, ImageRecord, extension_of, fingerprint
from ssl_swin.data.tar import scan_tar
from ssl_swin.errors import UserError

_CIFAR_FILES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "val": ("test_batch.bin",),
}
_CIFAR_CLASSES = "batches.meta.txt"
_CIFAR_PICKLE = "batches.meta"
_CIFAR_SHAPE = (3, 32, 32)  # channels, rows, columns
_CIFAR_ROW = 1 + 3 * 32 * 32  # bytes: label, then red, green and blue planes


class SynsetTarsSource:
    """ImageNet-22k as it is distributed: one tar of images per class, named by the class.

    The tars are read in place; opening the source reads all their headers once.
    """

    def __init__(self, root: str | os.PathLike[str], labelled: bool = True) -> None:
        """Lists the members of every tar.

        Args:
            root: The folder of tars.
            labelled: Whether the tars' names mean classes.

        Raises:
            UserError: If there is no image, or a tar is damaged.
        """
        self.root = Path(root)
        self._tars = sorted(path.stem for path in self.root.glob("*.tar"))
        self.classes: tuple[str, ...] = tuple(self._tars) if labelled else ()
        bar = tqdm(self._tars, desc="reading tar headers", unit="tar", disable=None)
        self._members = [_image_members(self.root / f"{tar}.tar") for tar in bar]
        self._ends = np.cumsum([len(members) for members in self._members], dtype=np.int64)
        if not len(self):
            raise UserError(f"no images in the tars of {self.root}")
        listing = b"".join(members.tobytes() for members in self._members)
        self.fingerprint = fingerprint((*self._tars, str(labelled)), listing)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> ImageRecord:
        tar = int(np.searchsorted(self._ends, index, side="right"))
        member = self._members[tar][index - self._ends[tar]]  # negative: counts from the tar's end
        name = os.fsdecode(bytes(member["name"]))
        with (self.root / f"{self._tars[tar]}.tar").open("rb") as file:
            file.seek(int(member["offset"]))
            data = file.read(int(member["size"]))
        label = tar if self.classes else None
        return ImageRecord(data, extension_of(name), label, f"{self._tars[tar]}.tar/{name}")


class CifarBinarySource:
    """One split of CIFAR-10's "binary version", from the archive or its unpacked folder.

    Each row of its files is a label byte and the planes of one 32 x 32 px image
    (https://www.cs.toronto.edu/~kriz/cifar.html); images are handed out as PNG. "val" is the
    test batch.
    """

    def __init__(
        self, path: str | os.PathLike[str], split: str = "train", labelled: bool = True
    ) -> None:
        """Reads the whole split to memory (150 MB for "train").

        Args:
            path: `cifar-10-binary.tar.gz`, or the folder in it.
            split: "train" or "val".
            labelled: Whether to hand out labels.

        Raises:
            UserError: If it is not the binary version, or is damaged.
        """
        wanted = (*_CIFAR_FILES[split], _CIFAR_CLASSES, _CIFAR_PICKLE)
        files = _read_files(Path(path), wanted)
        _check_cifar(Path(path), files, wanted[:-1])
        content = b"".join(files[name] for name in _CIFAR_FILES[split])
        names = tuple(files[_CIFAR_CLASSES].decode().split())
        self._rows = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_ROW)
        if self._rows[:, 0].max() >= len(names):
            raise UserError(f"{path} has labels beyond the {len(names)} names in {_CIFAR_CLASSES}")
        self.classes: tuple[str, ...] = names if labelled else ()
        self._split = split
        self.fingerprint = fingerprint(self.classes, content)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> ImageRecord:
        row = self._rows[index]
        png = io.BytesIO()
        Image.fromarray(row[1:].reshape(_CIFAR_SHAPE).transpose(1, 2, 0)).save(png, "PNG")
        label = int(row[0]) if self.classes else None
        return ImageRecord(png.getvalue(), "png", label, f"{self._split}[{index}]")


def is_cifar(folder: Path) -> bool:
    """Tells whether a folder is CIFAR-10 unpacked, in either version."""
    return any((folder / name).is_file() for name in (_CIFAR_CLASSES, _CIFAR_PICKLE))


def _image_members(tar: Path) -> NDArray[Any]:
    scan = scan_tar(tar)
    if scan.problem is not None:
        raise UserError(f"{tar}: {scan.problem}. Copy or download it anew")
    images = [
        (os.fsencode(name), offset, size)
        for name, offset, size in scan.members
        if extension_of(name) in IMAGE_EXTENSIONS and not os.path.basename(name).startswith(".")
    ]
    width = max((len(name) for name, _, _ in images), default=1)
    return np.array(images, dtype=[("name", f"S{width}"), ("offset", "<i8"), ("size", "<i8")])


def _read_files(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Reads those of `names` that lie in a folder, or anywhere in an archive."""
    if path.is_dir():
        return {name: (path / name).read_bytes() for name in names if (path / name).is_file()}
    files = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None and (name := os.path.basename(member.name)) in names:
                    files[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"{path} is no folder, and cannot be read as an archive ({error}). Give a folder of "
            "images, or cifar-10-binary.tar.gz"
        ) from error
    return files


def _check_cifar(path: Path, files: dict[str, bytes], needed: Collection[str]) -> None:
    if _CIFAR_PICKLE in files:
        raise UserError(
            f"{path} is the pickle version of CIFAR-10, and unpickling runs whatever code its "
            "maker put there. Take the binary version, cifar-10-binary.tar.gz"
        )
    missing = [name for name in needed if name not in files]
    if missing:
        raise UserError(
            f"{path} is not the binary version of CIFAR-10: it lacks {', '.join(missing)}. Give a "
            "folder of images, or cifar-10-binary.tar.gz"
        )
    for name, content in files.items():
        if name.endswith(".bin") and (not content or len(content) % _CIFAR_ROW):
            raise UserError(
                f"{path}: {name} has {len(content)} bytes, not a multiple of {_CIFAR_ROW}: "
                "truncated. Download it anew"
            )

"""Building the index of shards by a walk over their headers that trusts none of them."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from ssl_swin.data.dataset import NO_LABEL
from ssl_swin.data.encoded import IMAGE, LABEL_EXTENSION, member_names
from ssl_swin.data.shards.index_file import (
    BYTE_RANGE,
    CLASSES_NAME,
    EXTENT,
    INDEX_NAME,
    PLAN_NAME,
    ByteRanges,
    ScannedShard,
    Shard,
    ShardIndex,
    read_content,
    write_index,
)
from ssl_swin.data.shards.tar import group_samples, scan_tar
from ssl_swin.data.split_names import split_in_name
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder
from ssl_swin.quoting import shell_path

_MAX_FILE_BYTES = 2**32 - 1
_MAX_LABEL = 2**31 - 1
_MAX_MEMBERS = 256  # kinds of further members in a set; a column of the index each
_LABEL = re.compile(rb"\s*[0-9]{1,10}\s*")

Files = dict[str, tuple[int, int]]  # offset and size by extension


def build_index(
    root: str | os.PathLike[str],
    index_dir: str | os.PathLike[str] | None = None,
    *,
    num_workers: int = 0,
    progress: bool = True,
) -> ShardIndex:
    """Index shards that were packed by whatever means, and write the index.

    A shard belongs to the split that a word of its name names ("imagenet1k-validation-00.tar"), or
    else to train. Class names are kept from the index before, or else read from `classes.txt`
    beside the shards.

    Args:
        root: Folder of the shards.
        index_dir: Folder of the index, created if need be; None is `root`.
        num_workers: Processes that read headers; 0 is this one. On storage with long waits, many.
        progress: Whether to show a progress bar.

    Raises:
        UserError: If there is no shard or no image, a shard is damaged, a label has no class name,
            or the folder of the index cannot be written to.
    """
    folder = Path(root)
    if (folder / PLAN_NAME).exists():
        raise UserError(
            f"{folder} holds an interrupted packing: the same ssl-swin pack command completes it"
        )
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise UserError(f"no shards in {folder}: looked for *.tar and found none")
    index_folder = make_index_folder(root, index_dir)
    classes = read_classes(folder, index_folder)
    splits: dict[str, list[ScannedShard]] = {}
    for path, scanned in zip(paths, _scan_shards(paths, num_workers, progress), strict=True):
        splits.setdefault(split_of(path.name), []).append(scanned)
    if not any(shard.num_samples for shards in splits.values() for shard, *_ in shards):
        raise UserError(f"no images in the shards of {folder}: {len(paths)} tars hold none")
    return write_index(index_folder, classes, splits, root=folder)


def scan_shard(path: Path) -> ScannedShard:
    """Read all headers and labels of one shard.

    A sample is what lies under one key side by side: an image, its label as the number in the
    `.cls` file, and further members; `encoded.member_names` has the rule.

    Returns:
        The shard, and for each sample, in the order of the file, where its files lie.

    Raises:
        UserError: If the tar is damaged, truncated or cannot be read, a sample has no image, a
            label that is no number or two files for one member, or its files are not next to each
            other.
    """
    try:
        return _scan_shard(path)
    except OSError as error:
        raise UserError(f"cannot read shard {path}: {error.strerror}") from error


def split_of(name: str) -> str:
    """Return the split that a word of a shard's file name names; without any it is train."""
    return split_in_name(name) or "train"


def make_index_folder(
    root: str | os.PathLike[str], index_dir: str | os.PathLike[str] | None
) -> Path:
    """Return the folder of the index, created if need be.

    Raises:
        UserError: If it cannot be written to.
    """
    try:
        return make_folder(index_dir or root)
    except UserError as error:
        raise UserError(
            f"cannot write the index: {error}. Keep it in another folder DIR: set "
            f"data.index_dir=DIR, or ssl-swin index {shell_path(root)} --out DIR"
        ) from error


def _scan_shards(paths: list[Path], num_workers: int, progress: bool) -> Iterable[ScannedShard]:
    from ssl_swin.data.parallel import ordered_map

    scanned = ordered_map(scan_shard, paths, num_workers=num_workers)
    bar: Iterable[ScannedShard] = tqdm(
        scanned, desc="indexing", total=len(paths), unit="shard", disable=not progress
    )
    return bar


def _scan_shard(path: Path) -> ScannedShard:
    scan = scan_tar(path)
    samples = group_samples(scan.members)
    if scan.problem is not None:
        raise UserError(
            f"shard {path}: {scan.problem} (complete samples before it: "
            f"{_num_complete(samples)}). Copy or download it anew"
        )
    extents = np.empty(len(samples), EXTENT)
    members: dict[str, ByteRanges] = {}
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, (key, files) in enumerate(samples):
            try:
                if key in seen:
                    raise ValueError("has files that are not next to each other")
                image, *others = _image_and_members(files)
                extents[number] = (*_byte_range(files, image), _label(file, files))
                for extension in others:
                    ranges = members.setdefault(extension, np.zeros(len(samples), BYTE_RANGE))
                    ranges[number] = _byte_range(files, extension)
                if len(members) > _MAX_MEMBERS:
                    raise ValueError(f"has one more kind of file than {_MAX_MEMBERS}, the most")
            except ValueError as error:
                raise UserError(f"shard {path}: sample {key!r} {error}") from error
            seen.add(key)
    return ScannedShard(Shard(path.name, scan.num_bytes, len(samples)), extents, members)


def _image_and_members(files: Files) -> list[str]:
    """Return the extension of a sample's image, and after it those of its further members."""
    extensions = member_names(files)
    if IMAGE not in extensions:
        raise ValueError(f"holds no image, only: {', '.join(files)}")
    image = extensions.pop(IMAGE)
    return [image, *extensions.values()]


def _byte_range(files: Files, extension: str) -> tuple[int, int]:
    offset, size = files[extension]
    if size > _MAX_FILE_BYTES:
        raise ValueError(f"has a .{extension} of {size} bytes; the most is {_MAX_FILE_BYTES}")
    return offset, size


def _label(file: BinaryIO, files: Files) -> int:
    if LABEL_EXTENSION not in files:
        return NO_LABEL
    offset, size = files[LABEL_EXTENSION]
    file.seek(offset)
    content = file.read(size)
    if not _LABEL.fullmatch(content) or int(content) > _MAX_LABEL:
        raise ValueError(f"has a .cls file that is no label: {content[:40]!r}")
    return int(content)


def _num_complete(samples: list[tuple[str, Files]]) -> int:
    """Return the number of samples before a damage; the last may lack files of the first."""
    if not samples:
        return 0
    return len(samples) - (len(samples[-1][1]) < len(samples[0][1]))


def read_classes(folder: Path, index_folder: Path) -> tuple[str, ...]:
    """Return class names from an index that exists, of any version, or from `classes.txt`."""
    for path in (index_folder / INDEX_NAME, folder / INDEX_NAME):
        if path.exists() and (classes := read_content(path).get("classes")):
            return tuple(classes)
    path = folder / CLASSES_NAME
    lines = path.read_text().splitlines() if path.exists() else ()
    return tuple(line.strip() for line in lines if line.strip())

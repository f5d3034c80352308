"""Building the index of shards by a walk over their headers that trusts none of them."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from ssl_swin.data.file_types import IMAGE_EXTENSIONS
from ssl_swin.data.shards.index_file import (
    CLASSES_NAME,
    EXTENT,
    INDEX_NAME,
    NO_LABEL,
    PLAN_NAME,
    Extents,
    Shard,
    ShardIndex,
    read_content,
    write_index,
)
from ssl_swin.data.shards.tar import group_samples, scan_tar
from ssl_swin.data.split_names import split_in_name
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder

_MAX_IMAGE_BYTES = 2**32 - 1
_MAX_LABEL = 2**31 - 1
_LABEL = re.compile(rb"\s*[0-9]{1,10}\s*")

Members = dict[str, tuple[int, int]]  # offset and size by extension


def build_index(
    root: str | os.PathLike[str],
    index_dir: str | os.PathLike[str] | None = None,
    *,
    num_workers: int = 0,
    progress: bool = True,
) -> ShardIndex:
    """Indexes shards that were packed by whatever means, and writes the index.

    A shard belongs to the split that a word of its name says ("imagenet1k-validation-00.tar"), or
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
            f"{folder} holds a packing cut short: the same ssl-swin pack command completes it"
        )
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise UserError(f"no shards in {folder}: looked for *.tar and found none")
    index_folder = make_index_folder(root, index_dir)
    classes = read_classes(folder, index_folder)
    splits: dict[str, list[tuple[Shard, Extents]]] = {}
    for path, scanned in zip(paths, _scan_shards(paths, num_workers, progress), strict=True):
        splits.setdefault(split_of(path.name), []).append(scanned)
    if not any(shard.num_samples for shards in splits.values() for shard, _ in shards):
        raise UserError(f"no images in the shards of {folder}: {len(paths)} tars hold none")
    return write_index(index_folder, classes, splits, root=folder)


def scan_shard(path: Path) -> tuple[Shard, Extents]:
    """Reads all headers and labels of one shard.

    A sample is what lies under one key side by side. Its image is the first member with an
    extension of one, its label the number in its `.cls` member.

    Returns:
        The shard, and for each sample, in the order of the file, where its image lies.

    Raises:
        UserError: If the tar is damaged, cut or cannot be read, a sample has no image or a label
            that is no number, or its files are not next to each other.
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
    """Gives the folder of the index, created if need be.

    Raises:
        UserError: If it cannot be written to.
    """
    try:
        return make_folder(index_dir or root)
    except UserError as error:
        raise UserError(
            f"cannot write the index: {error}. Keep it in another folder DIR: set "
            f"data.index_dir=DIR, or ssl-swin index {root} --out DIR"
        ) from error


def _scan_shards(
    paths: list[Path], num_workers: int, progress: bool
) -> Iterable[tuple[Shard, Extents]]:
    from ssl_swin.data.parallel import ordered_map

    scanned = ordered_map(scan_shard, paths, num_workers=num_workers)
    bar: Iterable[tuple[Shard, Extents]] = tqdm(
        scanned, desc="indexing", total=len(paths), unit="shard", disable=not progress
    )
    return bar


def _scan_shard(path: Path) -> tuple[Shard, Extents]:
    scan = scan_tar(path)
    samples = group_samples(scan.members)
    if scan.problem is not None:
        raise UserError(
            f"shard {path}: {scan.problem} (whole samples before it: {_num_whole(samples)}). Copy "
            "or download it anew"
        )
    extents = np.empty(len(samples), EXTENT)
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, (key, members) in enumerate(samples):
            try:
                if key in seen:
                    raise ValueError("has files that are not next to each other")
                extents[number] = (*_image(members), _label(file, members))
            except ValueError as error:
                raise UserError(f"shard {path}: sample {key!r} {error}") from error
            seen.add(key)
    return Shard(path.name, scan.num_bytes, len(samples)), extents


def _image(members: Members) -> tuple[int, int]:
    for extension, (offset, size) in members.items():
        if extension in IMAGE_EXTENSIONS:
            if size > _MAX_IMAGE_BYTES:
                raise ValueError(f"has an image of {size} bytes; the most is {_MAX_IMAGE_BYTES}")
            return offset, size
    raise ValueError(f"holds no image, only: {', '.join(members)}")


def _label(file: BinaryIO, members: Members) -> int:
    if "cls" not in members:
        return NO_LABEL
    offset, size = members["cls"]
    file.seek(offset)
    content = file.read(size)
    if not _LABEL.fullmatch(content) or int(content) > _MAX_LABEL:
        raise ValueError(f"has a .cls file that is no label: {content[:40]!r}")
    return int(content)


def _num_whole(samples: list[tuple[str, Members]]) -> int:
    """Counts the samples before a damage; the last may lack members that the first has."""
    if not samples:
        return 0
    return len(samples) - (len(samples[-1][1]) < len(samples[0][1]))


def read_classes(folder: Path, index_folder: Path) -> tuple[str, ...]:
    """Class names from an index that is there already, of any version, or from `classes.txt`."""
    for path in (index_folder / INDEX_NAME, folder / INDEX_NAME):
        if path.exists() and (classes := read_content(path).get("classes")):
            return tuple(classes)
    path = folder / CLASSES_NAME
    lines = path.read_text().splitlines() if path.exists() else ()
    return tuple(line.strip() for line in lines if line.strip())

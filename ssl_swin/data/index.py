"""What lies in a folder of shards, written down beside them so that a loss is noticed (L1)."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssl_swin.data.records import IMAGE_EXTENSIONS, SPLIT_NAMES, fingerprint
from ssl_swin.data.tar import group_samples, scan_tar
from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically

INDEX_NAME = "index.json"
PLAN_NAME = "plan.json"  # there while packing goes on, so that a part is not taken for the whole
CLASSES_NAME = "classes.txt"  # optional beside shards that others packed, one name per line

_FORMAT = {"format": "ssl-swin-shards", "version": 1}


@dataclass(frozen=True)
class Shard:
    """One tar."""

    name: str
    num_bytes: int
    num_samples: int


@dataclass(frozen=True)
class ShardIndex:
    """The shards of a folder by split, in order."""

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Shard, ...]]

    def paths(self, split: str) -> list[Path]:
        """Paths of a split's shards."""
        return [self.root / shard.name for shard in self.splits[split]]

    def num_samples(self, split: str) -> int:
        """Number of images in a split."""
        return sum(shard.num_samples for shard in self.splits[split])

    @property
    def fingerprint(self) -> str:
        """16 hex digits over (split, name, bytes, samples) of all shards, wherever they lie."""
        return fingerprint(
            f"{split}\t{shard.name}\t{shard.num_bytes}\t{shard.num_samples}"
            for split, shards in self.splits.items()
            for shard in shards
        )


def open_index(root: str | os.PathLike[str]) -> ShardIndex:
    """Loads the index of a folder of shards, after building it if others packed them.

    Raises:
        UserError: If there is no folder, no shard or an unfinished packing; see also `load_index`
            and `build_index`.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise UserError(
            f"no shards: there is no folder {folder}. Make it: ssl-swin pack IMAGES {folder}"
        )
    return load_index(folder) if (folder / INDEX_NAME).exists() else build_index(folder)


def load_index(root: str | os.PathLike[str]) -> ShardIndex:
    """Reads `index.json` and checks that it lists every shard, each with its length on disk.

    Raises:
        UserError: If a shard is missing, has another size or is not listed, or the file is no
            index.
    """
    folder = Path(root)
    path = folder / INDEX_NAME
    try:
        index = _from_json(folder, json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read {path} ({type(error).__name__}: {error}). Restore it, or delete it: then "
            f"it is built anew from the shards, with class names from {CLASSES_NAME}"
        ) from error
    shards = [shard for split in index.splits.values() for shard in split]
    for shard in shards:
        _check_size(folder / shard.name, shard.num_bytes)
    _check_listed(folder, {shard.name for shard in shards})
    return index


def build_index(root: str | os.PathLike[str], progress: bool = True) -> ShardIndex:
    """Indexes WebDataset shards that others packed, and writes `index.json` beside them.

    A shard belongs to the split that a word of its name says ("imagenet1k-validation-00.tar"), or
    else to train. Classes are read from `classes.txt` if there is one.

    Args:
        root: Folder that holds the tars.
        progress: Whether to show a progress bar.

    Raises:
        UserError: If there is no shard, one is damaged, or the folder cannot be written to.
    """
    folder = Path(root)
    if (folder / PLAN_NAME).exists():
        raise UserError(f"{folder} holds a packing cut short. Delete it, and pack again")
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise UserError(f"no shards in {folder}: looked for *.tar and found none")
    splits: dict[str, list[Shard]] = {}
    for path in tqdm(paths, desc="indexing", unit="shard", disable=not progress):
        splits.setdefault(_split_of(path), []).append(_scan_shard(path))
    index = ShardIndex(
        folder, _read_classes(folder), {split: tuple(shards) for split, shards in splits.items()}
    )
    write_index(index)
    return index


def write_index(index: ShardIndex) -> None:
    """Writes `index.json` beside the shards, all of it or nothing.

    Raises:
        UserError: If the folder cannot be written to.
    """
    splits = {
        split: {"samples": index.num_samples(split), "shards": list(map(_to_json, shards))}
        for split, shards in index.splits.items()
    }
    content = {**_FORMAT, "classes": index.classes, "splits": splits}
    write_atomically(index.root / INDEX_NAME, json.dumps(content, indent=1) + "\n")


def _to_json(shard: Shard) -> dict[str, str | int]:
    return {"name": shard.name, "bytes": shard.num_bytes, "samples": shard.num_samples}


def _from_json(root: Path, content: Any) -> ShardIndex:
    found = {key: content.get(key) for key in _FORMAT}
    if found != _FORMAT:
        raise ValueError(f"expected {_FORMAT}, found {found}")
    splits = {
        split: tuple(
            Shard(_file_name(entry["name"]), int(entry["bytes"]), int(entry["samples"]))
            for entry in entries["shards"]
        )
        for split, entries in content["splits"].items()
    }
    return ShardIndex(root, tuple(content["classes"]), splits)


def _file_name(name: str) -> str:
    if Path(name).name != name:
        raise ValueError(f"shard name {name!r} leads out of the folder")
    return name


def _check_size(path: Path, expected: int) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(
            f"shard {path} is missing; the index lists it with {expected} bytes. Copy it anew"
        ) from None
    if size != expected:
        raise UserError(
            f"shard {path} has {size} bytes, the index says {expected}: truncated or rewritten. "
            "Copy it anew"
        )


def _check_listed(folder: Path, listed: set[str]) -> None:
    others = sorted(path.name for path in folder.glob("*.tar") if path.name not in listed)
    if others:
        raise UserError(
            f"{folder} holds {len(others)} shards that its {INDEX_NAME} does not list, the first "
            f"is {others[0]}. Move them away, or delete {INDEX_NAME} to have it built anew"
        )


def _split_of(path: Path) -> str:
    words = re.findall("[a-z]+", path.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "train")


def _scan_shard(path: Path) -> Shard:
    scan = scan_tar(path)
    samples = group_samples(scan.members)
    if scan.problem is not None:
        raise UserError(
            f"shard {path}: {scan.problem} (whole samples before it: {_num_whole(samples)}). Copy "
            "or download it anew"
        )
    seen: set[str] = set()
    for key, members in samples:
        if key in seen:
            raise UserError(f"shard {path}: the files of sample {key!r} are not next to each other")
        if not any(extension in IMAGE_EXTENSIONS for extension in members):
            held = ", ".join(members)
            raise UserError(f"shard {path}: sample {key!r} holds no image, only: {held}")
        seen.add(key)
    return Shard(path.name, scan.num_bytes, len(samples))


def _num_whole(samples: list[tuple[str, dict[str, tuple[int, int]]]]) -> int:
    """Counts the samples before a damage; the last may lack members that the first has."""
    if not samples:
        return 0
    return len(samples) - (len(samples[-1][1]) < len(samples[0][1]))


def _read_classes(folder: Path) -> tuple[str, ...]:
    path = folder / CLASSES_NAME
    lines: Iterable[str] = path.read_text().splitlines() if path.exists() else ()
    return tuple(line.strip() for line in lines if line.strip())

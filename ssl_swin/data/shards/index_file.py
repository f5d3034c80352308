"""An index of shards as it lies on disk: two files, and what they say.

`index.json` lists the shards and is small enough to read by eye. `index.bin` holds 16 bytes per
image and is mapped, never loaded: millions of images open as fast as ten.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path, write_atomically

INDEX_NAME = "index.json"
EXTENTS_NAME = "index.bin"
PLAN_NAME = "plan.json"  # there while packing goes on, so that a part is not taken for the whole
CLASSES_NAME = "classes.txt"  # optional beside shards that others packed, one name per line

EXTENT = np.dtype([("offset", "<u8"), ("size", "<u4"), ("label", "<i4")])
NO_LABEL = -1
Extents = NDArray[np.void]  # of dtype EXTENT: where an image's bytes lie in its shard

_FORMAT = {"format": "ssl-swin-shards", "version": 2}


@dataclass(frozen=True)
class Shard:
    """One tar."""

    name: str
    num_bytes: int
    num_samples: int


@dataclass(frozen=True)
class ShardIndex:
    """The shards of a folder by split, in order."""

    root: Path  # where the shards lie
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Shard, ...]]
    folder: Path  # where the index lies
    extents_sha256: str

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # not the mapping

    def num_samples(self, split: str) -> int:
        """Number of images in a split."""
        return sum(shard.num_samples for shard in self.splits[split])

    def shard_lengths(self, split: str) -> NDArray[np.int64]:
        """Number of images in each shard of a split."""
        return np.array([shard.num_samples for shard in self.splits[split]], dtype=np.int64)

    def extents(self, split: str) -> Extents:
        """Where each image of a split lies, shard by shard: (images,), mapped and read-only."""
        names = list(self.splits)
        first = sum(map(self.num_samples, names[: names.index(split)]))
        return self._all_extents[first : first + self.num_samples(split)]

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all shards (split, name, bytes, samples) and the images' places."""
        listing = (
            f"{split}\t{shard.name}\t{shard.num_bytes}\t{shard.num_samples}"
            for split, shards in self.splits.items()
            for shard in shards
        )
        return fingerprint(listing, self.extents_sha256.encode())

    @cached_property
    def _all_extents(self) -> Extents:
        return np.memmap(self.folder / EXTENTS_NAME, EXTENT, mode="r")


def read_content(path: Path) -> dict[str, Any]:
    """Reads an `index.json` of any version.

    Raises:
        UserError: If it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or content.get("format") != _FORMAT["format"]:
            raise ValueError(f"its format is not {_FORMAT['format']!r}")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return content


def index_from_content(root: Path, folder: Path, content: dict[str, Any]) -> ShardIndex:
    """Makes the index that an `index.json` describes.

    Args:
        root: Folder of the shards.
        folder: Folder of the index.
        content: What `read_content` read.

    Raises:
        UserError: If it is of another version, or something is missing in it.
    """
    try:
        if content["version"] != _FORMAT["version"]:
            raise ValueError(f"expected version {_FORMAT['version']}, found {content['version']}")
        splits = {
            split: tuple(map(_shard_from_content, entries["shards"]))
            for split, entries in content["splits"].items()
        }
        if not any(shard.num_samples for shards in splits.values() for shard in shards):
            raise ValueError("it lists no image")
        classes, digest = tuple(content["classes"]), str(content["extents"]["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(folder / INDEX_NAME, error) from error
    return ShardIndex(root, classes, splits, folder, digest)


def write_index(
    folder: Path,
    classes: Sequence[str],
    scanned: Mapping[str, Sequence[tuple[Shard, Extents]]],
    *,
    root: Path | None = None,
) -> ShardIndex:
    """Writes `index.bin` and then `index.json`, each all of it or nothing.

    Args:
        folder: Where to write.
        classes: Names by label; none if the images are unlabelled.
        scanned: By split, what `scan_shard` says of each shard, in order.
        root: Folder of the shards; None is `folder`.

    Raises:
        UserError: If a label has no class name, or the folder cannot be written to.
    """
    if classes:
        _check_labels(len(classes), scanned)
    scanned = {split: scanned[split] for split in sorted(scanned)}  # however the caller got there
    digest = _write_extents(folder / EXTENTS_NAME, scanned)
    splits = {split: tuple(shard for shard, _ in shards) for split, shards in scanned.items()}
    index = ShardIndex(root or folder, tuple(classes), splits, folder, digest)
    write_atomically(folder / INDEX_NAME, json.dumps(_to_content(index), indent=1) + "\n")
    return index


def _check_labels(num_classes: int, scanned: Mapping[str, Sequence[tuple[Shard, Extents]]]) -> None:
    for shards in scanned.values():
        for shard, extents in shards:
            highest = extents["label"].max(initial=NO_LABEL)
            if highest >= num_classes:
                raise UserError(
                    f"shard {shard.name} has the label {highest}, but there are {num_classes} "
                    f"class names. Mend {CLASSES_NAME} beside the shards, delete {INDEX_NAME} if "
                    "there is one, and index the shards anew"
                )


def _write_extents(path: Path, scanned: Mapping[str, Sequence[tuple[Shard, Extents]]]) -> str:
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for shards in scanned.values():
            for _, extents in shards:
                content = extents.tobytes()
                digest.update(content)
                file.write(content)
    return digest.hexdigest()


def _to_content(index: ShardIndex) -> dict[str, Any]:
    splits = {
        split: {
            "samples": index.num_samples(split),
            "shards": [
                {"name": shard.name, "bytes": shard.num_bytes, "samples": shard.num_samples}
                for shard in shards
            ],
        }
        for split, shards in index.splits.items()
    }
    extents = {"file": EXTENTS_NAME, "sha256": index.extents_sha256}
    return {**_FORMAT, "classes": index.classes, "extents": extents, "splits": splits}


def _shard_from_content(entry: dict[str, Any]) -> Shard:
    name = str(entry["name"])
    if Path(name).name != name:
        raise ValueError(f"shard name {name!r} leads out of the folder")
    return Shard(name, int(entry["bytes"]), int(entry["samples"]))


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot read {path} ({type(error).__name__}: {error}). Restore it, or delete it: then it "
        f"is built anew from the shards, with class names from {CLASSES_NAME}"
    )

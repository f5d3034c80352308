"""An index of shards as it lies on disk: up to three files, and what they say.

`index.json` lists the shards and is small enough to read by eye. `index.bin` holds 16 bytes per
sample: the byte range of its image, and its label. `members.bin` is there for sets whose samples
hold more than an image and a label; it has 12 bytes per sample and further member. The last two are
mapped, never loaded: millions of samples open as fast as ten.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import NO_LABEL
from ssl_swin.data.fingerprint import fingerprint
from ssl_swin.data.shards.labels import LabelValues
from ssl_swin.data.shards.layout import CONVENTION, SampleLayout
from ssl_swin.errors import UserError
from ssl_swin.files import atomic_path, write_atomically

INDEX_NAME = "index.json"
EXTENTS_NAME = "index.bin"
MEMBERS_NAME = "members.bin"
PLAN_NAME = "plan.json"  # there while packing goes on, so that a part is not taken for the whole
CLASSES_NAME = "classes.txt"  # optional beside shards that others packed, one name per line

EXTENT = np.dtype([("offset", "<u8"), ("size", "<u4"), ("label", "<i4")])
Extents = NDArray[np.void]  # (samples,) of dtype EXTENT: byte range and label of each image
BYTE_RANGE = np.dtype([("offset", "<u8"), ("size", "<u4")])
ByteRanges = NDArray[np.void]  # (samples, ...) of dtype BYTE_RANGE; offset 0 where a file is absent

_FORMAT = {"format": "ssl-swin-shards", "version": 3}
_READABLE_VERSIONS = (2, 3)  # 2 lists no members


@dataclass(frozen=True)
class Shard:
    """One tar."""

    name: str  # relative to the folder of the set, with forward slashes
    num_bytes: int
    num_samples: int


class ScannedShard(NamedTuple):
    """A shard, and where the files of its samples lie."""

    shard: Shard
    extents: Extents
    members: Mapping[str, ByteRanges] = {}  # by file extension of a member, (samples,)


class IndexArray(NamedTuple):
    """An array that belongs to an index, as a file."""

    file_name: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class ShardIndex:
    """The shards of a folder by split, in order.

    Attributes:
        root: Folder of the shards.
        classes: Class names by label; empty for a set without labels.
        splits: The shards of each split.
        folder: Folder of the index.
        extents_sha256: Digest of `index.bin`.
        members: File extensions of the members that samples hold beside an image and a label,
            such as "mask.png": the columns of `members.bin`.
        members_sha256: Digest of `members.bin`; empty if there are no members.
        version: Version of the format that the index was read from.
        layout: Which files of a sample the index took for the image and the label.
        labels_by_name: Whether the values under the layout's label key are names of classes.
    """

    root: Path
    classes: tuple[str, ...]
    splits: Mapping[str, tuple[Shard, ...]]
    folder: Path
    extents_sha256: str
    members: tuple[str, ...] = ()
    members_sha256: str = ""
    version: int = _FORMAT["version"]  # type: ignore[assignment]
    layout: SampleLayout = CONVENTION
    labels_by_name: bool = False

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # not the mappings

    def num_samples(self, split: str) -> int:
        """Return the number of samples in a split."""
        return sum(shard.num_samples for shard in self.splits[split])

    def shard_lengths(self, split: str) -> NDArray[np.int64]:
        """Return the number of samples in each shard of a split."""
        return np.array([shard.num_samples for shard in self.splits[split]], dtype=np.int64)

    def extents(self, split: str) -> Extents:
        """Return byte range and label of each image of a split: (samples,), mapped, read-only."""
        return self._all_extents[self._samples_of(split)]

    def member_ranges(self, split: str) -> ByteRanges:
        """Return the byte ranges of further members: (samples, `members`), mapped, read-only."""
        if not self.members:
            return np.empty((self.num_samples(split), 0), BYTE_RANGE)
        return self._all_member_ranges[self._samples_of(split)]

    @property
    def label_values(self) -> LabelValues:
        """What the values under the layout's label key mean."""
        return LabelValues(self.classes, self.labels_by_name)

    @property
    def arrays(self) -> tuple[IndexArray, ...]:
        """The files that belong to `index.json`, with the lengths and digests they must have."""
        total = sum(map(self.num_samples, self.splits))
        extents = IndexArray(EXTENTS_NAME, self.extents_sha256, EXTENT.itemsize * total)
        if not self.members:
            return (extents,)
        num_bytes = BYTE_RANGE.itemsize * len(self.members) * total
        return extents, IndexArray(MEMBERS_NAME, self.members_sha256, num_bytes)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all shards (split, name, bytes, samples) and all byte ranges.

        For a set of images and labels alone it is the same in versions 2 and 3: checkpoints hold
        it, and a run is continued only with an equal one.
        """
        listing = (
            f"{split}\t{shard.name}\t{shard.num_bytes}\t{shard.num_samples}"
            for split, shards in self.splits.items()
            for shard in shards
        )
        members = [self.members_sha256, *self.members] if self.members else []
        return fingerprint(listing, "\0".join([self.extents_sha256, *members]).encode())

    def _samples_of(self, split: str) -> slice:
        names = list(self.splits)
        first = sum(map(self.num_samples, names[: names.index(split)]))
        return slice(first, first + self.num_samples(split))

    @cached_property
    def _all_extents(self) -> Extents:
        return np.memmap(self.folder / EXTENTS_NAME, EXTENT, mode="r")

    @cached_property
    def _all_member_ranges(self) -> ByteRanges:
        flat = np.memmap(self.folder / MEMBERS_NAME, BYTE_RANGE, mode="r")
        return flat.reshape(-1, len(self.members))


def read_content(path: Path) -> dict[str, Any]:
    """Read an `index.json` of any version.

    Raises:
        UserError: If it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or content.get("format") != _FORMAT["format"]:
            raise ValueError(f"its format is not {_FORMAT['format']!r}")
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    return content


def index_from_content(root: Path, folder: Path, content: dict[str, Any]) -> ShardIndex:
    """Make the index that an `index.json` of version 2 or 3 describes.

    Args:
        root: Folder of the shards.
        folder: Folder of the index.
        content: The contents of `index.json`, from `read_content`.

    Raises:
        UserError: If it is of another version, or something is missing in it.
    """
    try:
        version = content["version"]
        if version not in _READABLE_VERSIONS:
            raise ValueError(f"expected version 2 or 3, found {version}")
        splits = {
            split: tuple(map(_shard_from_content, entries["shards"]))
            for split, entries in content["splits"].items()
        }
        if not any(shard.num_samples for shards in splits.values() for shard in shards):
            raise ValueError("it lists no image")
        classes, digest = _class_names(content["classes"]), str(content["extents"]["sha256"])
        entry = content.get("members", {"extensions": (), "sha256": ""})
        members, members_digest = tuple(map(str, entry["extensions"])), str(entry["sha256"])
        layout = _layout(content)
        by_name = bool(content.get("labels", {}).get("by_name"))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise _unreadable(folder / INDEX_NAME, error) from error
    return ShardIndex(
        root, classes, splits, folder, digest, members, members_digest, version, layout,
        by_name,
    )  # fmt: skip


def read_choices(path: Path) -> tuple[SampleLayout, tuple[str, ...]]:
    """Read from an `index.json` of any version what a new index of the set keeps.

    Returns:
        Which files of a sample are image and label, and the class names.

    Raises:
        UserError: If it cannot be read, or is something else.
    """
    content = read_content(path)
    try:
        return _layout(content), _class_names(content.get("classes", []))
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(path, error) from error


def _layout(content: dict[str, Any]) -> SampleLayout:
    labels = content.get("labels")
    return SampleLayout(content.get("image"), None if labels is None else labels["key"])


def write_index(
    folder: Path,
    classes: Sequence[str],
    scanned: Mapping[str, Sequence[ScannedShard]],
    *,
    root: Path | None = None,
    layout: SampleLayout = CONVENTION,
    labels_by_name: bool = False,
) -> ShardIndex:
    """Write the arrays and then `index.json`, each file completely or not at all.

    Args:
        folder: Folder to write to.
        classes: Class names by label; empty if the samples have no labels.
        scanned: The shards of each split as `scan_shard` returns them, in order.
        root: Folder of the shards; None is `folder`.
        layout: Which files of a sample were taken for the image and the label.
        labels_by_name: Whether the values under the layout's label key are names of classes.

    Raises:
        UserError: If a label has no class name, or the folder cannot be written to.
    """
    if classes:
        _check_labels(len(classes), scanned)
    scanned = {split: scanned[split] for split in sorted(scanned)}  # however the caller got there
    members = sorted({name for shards in scanned.values() for s in shards for name in s.members})
    in_order = [shard for shards in scanned.values() for shard in shards]
    digest = _write_array(folder / EXTENTS_NAME, (s.extents.tobytes() for s in in_order))
    members_digest = ""
    if members:
        rows = (_member_rows(shard, members).tobytes() for shard in in_order)
        members_digest = _write_array(folder / MEMBERS_NAME, rows)
    splits = {split: tuple(s.shard for s in shards) for split, shards in scanned.items()}
    index = ShardIndex(
        root or folder, tuple(classes), splits, folder, digest, tuple(members), members_digest,
        layout=layout, labels_by_name=labels_by_name,
    )  # fmt: skip
    write_atomically(folder / INDEX_NAME, json.dumps(_to_content(index), indent=1) + "\n")
    return index


def _check_labels(num_classes: int, scanned: Mapping[str, Sequence[ScannedShard]]) -> None:
    for shards in scanned.values():
        for shard, extents, _ in shards:
            highest = extents["label"].max(initial=NO_LABEL)
            if highest >= num_classes:
                raise UserError(
                    f"shard {shard.name} has the label {highest}, but there are {num_classes} "
                    f"class names. Correct {CLASSES_NAME} beside the shards, delete {INDEX_NAME} "
                    "if there is one, and index the shards anew"
                )


def _member_rows(scanned: ScannedShard, members: Sequence[str]) -> ByteRanges:
    rows = np.zeros((scanned.shard.num_samples, len(members)), BYTE_RANGE)
    for column, extension in enumerate(members):
        if extension in scanned.members:
            rows[:, column] = scanned.members[extension]
    return rows


def _write_array(path: Path, parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for content in parts:
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
    content: dict[str, Any] = {
        **_FORMAT,
        "classes": index.classes,
        "extents": {"file": EXTENTS_NAME, "sha256": index.extents_sha256},
    }
    if index.members:
        digest = index.members_sha256
        content["members"] = {
            "file": MEMBERS_NAME, "sha256": digest, "extensions": index.members,
        }  # fmt: skip
    if index.layout.image is not None:
        content["image"] = index.layout.image
    if index.layout.label_key is not None:
        content["labels"] = {"key": index.layout.label_key, "by_name": index.labels_by_name}
    return {**content, "splits": splits}


def _class_names(entry: Any) -> tuple[str, ...]:
    if not isinstance(entry, list) or not all(isinstance(name, str) for name in entry):
        raise ValueError("its classes are no list of names")
    return tuple(entry)


def _shard_from_content(entry: dict[str, Any]) -> Shard:
    name = str(entry["name"])
    if PurePosixPath(name).is_absolute() or {"", ".", ".."} & set(name.split("/")):
        raise ValueError(f"shard name {name!r} leads out of the folder")
    return Shard(name, int(entry["bytes"]), int(entry["samples"]))


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"cannot read {path} ({type(error).__name__}: {error}). Restore it, or delete it: then it "
        f"is built anew from the shards, with class names from {CLASSES_NAME}"
    )

"""Whether shards are what their index says, and every image in them can be read."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.encoded import MASK, further_member_name
from ssl_swin.data.images.decode import AS_STORED
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.inspection.duplicates import Digests, repeated
from ssl_swin.data.inspection.sample_check import SampleCheck
from ssl_swin.data.member_check import ANY_VALUES, MemberCheck
from ssl_swin.data.parallel import ordered_map
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.finding import find_shards
from ssl_swin.data.shards.index_file import (
    BYTE_RANGE,
    ByteRanges,
    Extents,
    ScannedShard,
    Shard,
    ShardIndex,
)
from ssl_swin.data.shards.scanning import scan_shard
from ssl_swin.display.work import Work
from ssl_swin.plurals import counted

# Kinds of findings with which a set is sound all the same.
WARNINGS = ("values", "missing", "useless", "duplicate", "leak")


class Finding(NamedTuple):
    """Something wrong."""

    # index, shard, image, label, values, mask, boxes, missing (no mask or boxes), useless (boxes),
    # duplicate (in one split) or leak (across them)
    kind: str
    split: str  # empty for what belongs to none
    shard: str
    member: str  # name in the tar; empty if it is about the shard
    problem: str


@dataclass(frozen=True)
class CheckReport:
    """What came of a check."""

    num_read: int  # images whose bytes were read
    findings: list[Finding]

    @property
    def is_sound(self) -> bool:
        """Whether there is nothing but warnings."""
        return all(finding.kind in WARNINGS for finding in self.findings)


class _ShardInSplit(NamedTuple):
    """A shard in its split."""

    split: str
    shard: Shard
    first: int  # number in the split of its first image

    @property
    def images(self) -> slice:
        return slice(self.first, self.first + self.shard.num_samples)


class _Checked(NamedTuple):
    """What came of a shard; digests are zero where an image was not read."""

    findings: list[Finding]
    digests: Digests


def check_shards(
    index: ShardIndex,
    *,
    decode: bool = True,
    num_workers: int = 2,
    progress: bool = True,
    pixels: PixelFormat = AS_STORED,
    others: MemberCheck | None = None,
) -> CheckReport:
    """Read every shard and compare it with the index; find equal images by their bytes.

    The images of a shard that is missing, damaged or other than the index says are not read.

    Args:
        index: Index of the set, loaded without a look at the shards.
        decode: Whether to decode every image, as it is stored, and its mask and boxes.
        num_workers: Number of processes; 0 is this one.
        progress: Whether to show how far it is.
        pixels: Says how large an image may be.
        others: What masks and boxes are held against; None takes the classes that the index names,
            if they are not those of whole images.
    """
    places = _places(index)
    sources = {split: ShardDataset(index, split) for split in index.splits}
    if others is None:
        others = replace(ANY_VALUES, num_classes=classes_of_members(index))
    samples = SampleCheck(decode, pixels, others, _members(index))
    check = partial(_check_shard, index, sources, samples)
    findings = [*_check_arrays(index), *_check_listed(index)]
    digests = []
    num_images = sum(place.shard.num_samples for place in places)
    results = ordered_map(check, places, num_workers=num_workers)
    with Work("checking", num_images, show=progress) as work:
        for place, checked in zip(places, results, strict=True):
            findings += checked.findings
            digests.append(checked.digests)
            work.advance(place.shard.num_samples)
    all_digests = np.concatenate(digests)
    findings += _duplicates(places, sources, all_digests)
    return CheckReport(int(all_digests.any(axis=1).sum()), findings)


def classes_of_members(index: ShardIndex) -> int | None:
    """Return how many classes of masks or boxes an index names; None if those are of images.

    Args:
        index: Index of the set.
    """
    is_labelled = any((index.extents(split)["label"] >= 0).any() for split in index.splits)
    has_members = {MASK, BOXES} & {*_members(index)}
    return len(index.classes) if index.classes and has_members and not is_labelled else None


def _members(index: ShardIndex) -> tuple[str, ...]:
    return tuple(map(further_member_name, index.members))


def _places(index: ShardIndex) -> list[_ShardInSplit]:
    """List all shards, those of train first: an image of val is then found again, not before."""
    places = []
    for split in sorted(index.splits, key=lambda split: (split != "train", split)):
        first = 0
        for shard in index.splits[split]:
            places.append(_ShardInSplit(split, shard, first))
            first += shard.num_samples
    return places


def _check_arrays(index: ShardIndex) -> Iterator[Finding]:
    for array in index.arrays:
        with (index.folder / array.file_name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != array.sha256:
            problem = f"its SHA-256 is {found}, the index says {array.sha256}"
            yield Finding("index", "", array.file_name, "", problem)


def _check_listed(index: ShardIndex) -> Iterator[Finding]:
    listed = {shard.name for shards in index.splits.values() for shard in shards}
    for name in find_shards(index.root):
        if name not in listed:
            yield Finding("shard", "", name, "", "the index does not list it")


def _check_shard(
    index: ShardIndex,
    sources: dict[str, ShardDataset],
    samples: SampleCheck,
    place: _ShardInSplit,
) -> _Checked:
    digests = np.zeros((place.shard.num_samples, 2), dtype=np.uint64)
    extents = index.extents(place.split)[place.images]
    problem = _damage(index, place, extents)
    if problem is not None:
        return _Checked([Finding("shard", place.split, place.shard.name, "", problem)], digests)
    source = sources[place.split]
    problems = [
        *_wrong_labels(extents["label"], 0 if classes_of_members(index) else len(index.classes)),
        *_wrong_samples(source, place, samples, digests),
    ]
    findings = [
        Finding(kind, place.split, place.shard.name, source.file_name(place.first + number), text)
        for kind, number, text in problems
    ]
    return _Checked(findings, digests)


def _damage(index: ShardIndex, place: _ShardInSplit, extents: Extents) -> str | None:
    """Return how a shard as a whole differs from what the index says; None if it does not."""
    shard = place.shard
    path = index.root / shard.name
    try:
        num_bytes = path.stat().st_size
        if num_bytes != shard.num_bytes:
            return f"it has {num_bytes} bytes, the index says {shard.num_bytes}"
        scanned = scan_shard(path, index, shard.name)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    found = scanned.extents
    if len(found) != len(extents):
        return f"it holds {counted(len(found), 'image')}, the index says {len(extents)}"
    others = np.flatnonzero(found != extents)
    if len(others):
        return (
            f"the index says other places or labels of {len(others)} of its images, the first is "
            f"number {others[0]}"
        )
    return _members_elsewhere(index, scanned, index.member_ranges(place.split)[place.images])


def _members_elsewhere(index: ShardIndex, scanned: ScannedShard, ranges: ByteRanges) -> str | None:
    """Return which members lie elsewhere than the index says; version 2 lists none."""
    if index.version < 3:
        return None
    for extension in sorted({*index.members, *scanned.members}):
        absent = np.zeros(len(ranges), BYTE_RANGE)
        found = scanned.members.get(extension, absent)
        listed = ranges[:, index.members.index(extension)] if extension in index.members else absent
        others = np.flatnonzero(found != listed)
        if len(others):
            return (
                f"the index says other places of {len(others)} of its .{extension} files, the "
                f"first is of sample number {others[0]}"
            )
    return None


def _wrong_labels(labels: NDArray[np.int32], num_classes: int) -> Iterator[tuple[str, int, str]]:
    if num_classes == 0:
        return
    for number in np.flatnonzero((labels < 0) | (labels >= num_classes)).tolist():
        held = "no label" if labels[number] < 0 else f"label {labels[number]}"
        yield "label", number, f"{held}, where there are {num_classes} classes"


def _wrong_samples(
    source: ShardDataset, place: _ShardInSplit, samples: SampleCheck, digests: Digests
) -> Iterator[tuple[str, int, str]]:
    """Read the samples of a shard, look into them, and write down the digests of the images."""
    for number in range(place.shard.num_samples):
        try:
            encoded = source[place.first + number]
            digest = hashlib.blake2b(encoded.data, digest_size=16).digest()
            digests[number] = np.frombuffer(digest, "<u8")
            for kind, text in samples.problems(encoded):
                yield kind, number, text
        except (ValueError, OSError) as error:
            yield "image", number, str(error)


def _duplicates(
    places: list[_ShardInSplit], sources: dict[str, ShardDataset], digests: Digests
) -> Iterator[Finding]:
    ends = np.cumsum([place.shard.num_samples for place in places])

    def find(image: int) -> tuple[str, str, str]:
        number = int(np.searchsorted(ends, image, side="right"))
        split, shard, first = places[number]
        index = first + shard.num_samples - (int(ends[number]) - image)
        return split, shard.name, sources[split].file_name(index)

    for image, earlier in repeated(digests):
        here, there = find(image), find(earlier)
        kind = "duplicate" if here[0] == there[0] else "leak"
        yield Finding(kind, *here, f"the same bytes as {' '.join(there)}")

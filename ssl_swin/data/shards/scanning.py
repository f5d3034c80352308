"""Looking into one shard: where the files of its samples lie, and what their labels are."""

from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ssl_swin.data.dataset import NO_LABEL
from ssl_swin.data.shards.finding import refuse_other_content
from ssl_swin.data.shards.index_file import (
    BYTE_RANGE,
    EXTENT,
    ByteRanges,
    ScannedShard,
    Shard,
    ShardIndex,
)
from ssl_swin.data.shards.labels import (
    MAX_LABEL_BYTES,
    LabelValues,
    label_keys,
    label_number,
    label_value,
)
from ssl_swin.data.shards.layout import CONVENTION, SampleLayout, image_and_members, label_file
from ssl_swin.data.shards.tar import group_samples, scan_tar
from ssl_swin.errors import UserError

_MAX_FILE_BYTES = 2**32 - 1
_MAX_MEMBERS = 256  # kinds of further members in a set; a column of the index each

Files = dict[str, tuple[int, int]]  # offset and size by extension


class LabelledScan(NamedTuple):
    """A shard, and the values of its labels where they are no `.cls` numbers."""

    scanned: ScannedShard  # its labels are places in `values`, where there is a label key
    values: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()  # of the first sample's JSON, for messages

    @property
    def num_samples(self) -> int:
        """Number of samples in the shard."""
        return self.scanned.shard.num_samples

    def numbered(self, values: LabelValues) -> ScannedShard:
        """Return the shard with labels that mean classes."""
        try:
            labels = np.array([*map(values.number, self.values), NO_LABEL], np.int32)
        except ValueError as error:
            raise UserError(f"shard {self.scanned.shard.name}: a sample {error}") from error
        extents = self.scanned.extents.copy()
        extents["label"] = labels[extents["label"]]  # -1, for none, is the last one
        return self.scanned._replace(extents=extents)


def scan_shard(
    path: Path, index: ShardIndex | None = None, name: str | None = None
) -> ScannedShard:
    """Read all headers and labels of one shard.

    A sample is what lies under one key side by side: an image, its label as the number in the
    `.cls` file, and further members; `encoded.member_names` has the rule.

    Args:
        path: The shard.
        index: An index that says which files are image and label, and what labels mean; None takes
            WebDataset's convention.
        name: Name of the shard in its set; None takes the name of the file.

    Returns:
        The shard, and for each sample, in the order of the file, where its files lie.

    Raises:
        UserError: If the tar is damaged, truncated, compressed or cannot be read, a sample has no
            image, a label that is no number or two files for one member, or its files are not next
            to each other.
    """
    layout = CONVENTION if index is None else index.layout
    scan = scan_labelled(path, layout, name)
    if index is None or layout.label_key is None:
        return scan.scanned
    return scan.numbered(index.label_values)


def scan_labelled(path: Path, layout: SampleLayout, name: str | None = None) -> LabelledScan:
    """Read all headers and labels of one shard, with labels as they stand there.

    Args:
        path: The shard.
        layout: Which files of a sample are the image and the label.
        name: Name of the shard in its set; None takes the name of the file.

    Raises:
        UserError: As `scan_shard`.
    """
    try:
        return _scan_shard(path, layout, name or path.name)
    except OSError as error:
        raise UserError(f"cannot read shard {path}: {error.strerror}") from error


def _scan_shard(path: Path, layout: SampleLayout, name: str) -> LabelledScan:
    scan = scan_tar(path)
    samples = group_samples(scan.members)
    if scan.problem is not None:
        refuse_other_content(path)
        raise UserError(
            f"shard {path}: {scan.problem} (complete samples before it: "
            f"{_num_complete(samples)}). Copy or download it anew"
        )
    extents = np.empty(len(samples), EXTENT)
    members: dict[str, ByteRanges] = {}
    seen: set[str] = set()
    with path.open("rb") as file:
        labels = _Labels(file, layout)
        for number, (key, files) in enumerate(samples):
            try:
                if key in seen:
                    raise ValueError("has files that are not next to each other")
                image, *others = image_and_members(files, key, layout).values()
                extents[number] = (*_byte_range(files, image), labels.of(files))
                for extension in others:
                    ranges = members.setdefault(extension, np.zeros(len(samples), BYTE_RANGE))
                    ranges[number] = _byte_range(files, extension)
                if len(members) > _MAX_MEMBERS:
                    raise ValueError(f"has one more kind of file than {_MAX_MEMBERS}, the most")
            except ValueError as error:
                raise UserError(f"shard {path}: sample {key!r} {error}") from error
            seen.add(key)
    scanned = ScannedShard(Shard(name, scan.num_bytes, len(samples)), extents, members)
    return LabelledScan(scanned, tuple(labels.values), labels.keys)


class _Labels:
    """Reads the labels of one shard, and numbers values in the order of their first sight."""

    def __init__(self, file: BinaryIO, layout: SampleLayout) -> None:
        self.file = file
        self.layout = layout
        self.extension, _ = label_file(layout)
        self.values: dict[str, int] = {}
        self.keys: tuple[str, ...] = ()

    def of(self, files: Files) -> int:
        """Return the label of a sample, or the number of its value; -1 for none."""
        if self.extension not in files:
            return NO_LABEL
        content = self._read(*files[self.extension])
        if self.layout.label_key is None:
            return label_number(content)
        self.keys = self.keys or tuple(label_keys(content))
        value = label_value(content, self.layout)
        return NO_LABEL if value is None else self.values.setdefault(value, len(self.values))

    def _read(self, offset: int, size: int) -> bytes:
        if size > MAX_LABEL_BYTES:
            raise ValueError(
                f"has a .{self.extension} of {size} bytes; a file that holds a label has "
                f"{MAX_LABEL_BYTES} at most"
            )
        self.file.seek(offset)
        return self.file.read(size)


def _byte_range(files: Files, extension: str) -> tuple[int, int]:
    offset, size = files[extension]
    if size > _MAX_FILE_BYTES:
        raise ValueError(f"has a .{extension} of {size} bytes; the most is {_MAX_FILE_BYTES}")
    return offset, size


def _num_complete(samples: list[tuple[str, Files]]) -> int:
    """Return the number of samples before a damage; the last may lack files of the first."""
    if not samples:
        return 0
    return len(samples) - (len(samples[-1][1]) < len(samples[0][1]))

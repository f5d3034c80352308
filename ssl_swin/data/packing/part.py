"""A part of a packing, done by one of many jobs, and the record that it leaves for the join."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ssl_swin.data.packing.plan import ShardJob
from ssl_swin.data.packing.shard_writer import SkippedImage, WrittenShard
from ssl_swin.data.shards.index_file import PLAN_NAME
from ssl_swin.data.sources.left_out import LeftOut
from ssl_swin.errors import UserError
from ssl_swin.files import write_atomically

_PATTERN = re.compile(r"part-(\d+)-of-(\d+)\.json")
_TEXT = re.compile(r"(\d{1,9})/(\d{1,9})")


class Part(NamedTuple):
    """Which share of the shards is written: every `of`-th, from the `number`-th, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read K/N.

        Raises:
            UserError: If it is something else.
        """
        match = _TEXT.fullmatch(text)
        part = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= part.number <= part.of:
            raise UserError(f"a part is K/N, from 1/N to N/N, got {text!r}")
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def record_name(self) -> str:
        """Name of the file that says what the part has written."""
        return f"part-{self.number}-of-{self.of}.json"

    @property
    def lock_name(self) -> str:
        """Name of the file that only one process holds."""
        return f".pack.{self.number}-of-{self.of}.lock"

    def of_jobs(self, jobs: Sequence[ShardJob]) -> list[ShardJob]:
        """Return the shards of this part; none where there are fewer shards than parts."""
        return list(jobs[self.number - 1 :: self.of])


@dataclass(frozen=True)
class ShardRecord:
    """What became of one shard.

    Attributes:
        number: Place of the shard in the plan.
        split: Its split.
        name: Its file, which is not there if it has no sample.
        num_bytes: Size of the file.
        num_samples: Number of samples in it.
        num_not_finite: How many of them hold values that are not finite.
        skipped: Samples that were left out, with the reason.
    """

    number: int
    split: str
    name: str
    num_bytes: int
    num_samples: int
    num_not_finite: int
    skipped: tuple[SkippedImage, ...]


@dataclass(frozen=True)
class PartRecord:
    """What a part has written.

    Attributes:
        part: The part.
        plan_digest: Digest of the plan that it followed.
        splits: Splits of the sources, in their order.
        classes: Names of the classes; of the first part, which has the first shard.
        left_out: Files beside the images that were not taken; of the first part.
        shards: Its shards.
    """

    part: Part
    plan_digest: str
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    shards: tuple[ShardRecord, ...]


def plan_digest(folder: Path) -> str:
    """Return a digest of the plan in a folder.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        return hashlib.sha256((folder / PLAN_NAME).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {folder / PLAN_NAME}: {error.strerror}") from error


def record_of(job: ShardJob, number: int, written: WrittenShard) -> ShardRecord:
    """Return what the join has to know of a shard.

    Args:
        job: The shard's job.
        number: Its place in the plan.
        written: What became of it.
    """
    shard = written.shard
    return ShardRecord(
        number,
        job.split,
        job.name,
        shard.num_bytes,
        shard.num_samples,
        written.num_not_finite,
        tuple(written.skipped),
    )


def write_record(folder: Path, record: PartRecord) -> None:
    """Write what a part has done, completely or not at all.

    Args:
        folder: Folder of the shards.
        record: The record.
    """
    shards = [
        [s.number, s.split, s.name, s.num_bytes, s.num_samples, s.num_not_finite, s.skipped]
        for s in record.shards
    ]
    content = {
        "part": record.part,
        "plan": record.plan_digest,
        "splits": record.splits,
        "classes": record.classes,
        "left_out": record.left_out,
        "shards": shards,
    }
    write_atomically(folder / record.part.record_name, json.dumps(content) + "\n")


def record_files(folder: Path) -> list[Path]:
    """List the records of a folder's parts, by the number of parts and then by part."""
    found = [(path, _PATTERN.fullmatch(path.name)) for path in folder.glob("part-*-of-*.json")]
    named = [(int(match[2]), int(match[1]), path) for path, match in found if match]
    return [path for *_, path in sorted(named)]


def read_record(path: Path) -> PartRecord:
    """Read what a part has done.

    Raises:
        UserError: If the file is damaged or something else.
    """
    try:
        content = json.loads(path.read_bytes())
        return PartRecord(
            Part(*map(int, content["part"])),
            str(content["plan"]),
            tuple(map(str, content["splits"])),
            tuple(map(str, content["classes"])),
            tuple(LeftOut(*map(str, file)) for file in content["left_out"]),
            tuple(map(_shard, content["shards"])),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"cannot read {path} ({type(error).__name__}: {error}). Delete it, and pack that part "
            "again"
        ) from error


def _shard(row: list[Any]) -> ShardRecord:
    number, split, name, num_bytes, num_samples, num_not_finite, skipped = row
    images = tuple(SkippedImage(*map(str, image)) for image in skipped)
    counts = int(num_bytes), int(num_samples), int(num_not_finite)
    return ShardRecord(int(number), str(split), str(name), *counts, images)

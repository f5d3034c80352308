"""Packing by many jobs that know nothing of each other, and joining what they wrote.

Every part makes the same plan, and writes every N-th shard of it with a record of what it did. The
join checks that the records cover the plan, and writes what one process would have written.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.member_check import ANY_VALUES, MemberCheck
from ssl_swin.data.packing.locks import only_packer
from ssl_swin.data.packing.member_look import MemberLook, refuse_unfit
from ssl_swin.data.packing.pack import (
    PackReport,
    check_sources,
    finish,
    keeping_what_is_done,
    new_folder,
    quick,
)
from ssl_swin.data.packing.part import (
    Part,
    PartRecord,
    ShardRecord,
    plan_digest,
    read_record,
    record_files,
    record_of,
    write_record,
)
from ssl_swin.data.packing.plan import (
    SKIPPED_NAME,
    PackOptions,
    begin_or_continue,
    plan_jobs,
    read_plan,
    remove_leftovers,
)
from ssl_swin.data.packing.shard_writer import ShardWriter, SkippedImage
from ssl_swin.data.parallel import ordered_map
from ssl_swin.data.shards.index_file import (
    EXTENTS_NAME,
    INDEX_NAME,
    MEMBERS_NAME,
    PLAN_NAME,
    ScannedShard,
)
from ssl_swin.data.shards.scanning import scan_shard
from ssl_swin.data.sources.left_out import LeftOut, some
from ssl_swin.display.work import followed
from ssl_swin.errors import UserError


@dataclass(frozen=True)
class PartReport:
    """The result of packing a part."""

    num_shards: int  # of the part; none where there are fewer shards than parts
    num_shards_of_all: int
    num_packed: int
    skipped: list[SkippedImage]


def pack_part(
    sources: Mapping[str, ImageDataset],
    out: str | Path,
    part: Part,
    options: PackOptions,
    *,
    num_workers: int = 2,
    progress: bool = True,
    left_out: Sequence[LeftOut] = (),
    others: MemberCheck = ANY_VALUES,
) -> PartReport:
    """Write the shards of one part; cut short, the same call goes on where it ended.

    Args:
        sources: Data sets by split, the same for every part.
        out: Folder for the shards of all parts.
        part: Which part.
        options: What the bytes of the shards depend on, the same for every part.
        num_workers: Number of processes that write shards; 0 writes them in this one.
        progress: Whether to show how far it is.
        left_out: Files beside the images that were not taken.
        others: What masks and boxes are held against.

    Raises:
        UserError: As `pack`; or if another process packs this part, or the whole.
    """
    classes = check_sources(sources, options, num_workers)
    jobs = plan_jobs(sources, options)
    numbers = range(len(jobs))[part.number - 1 :: part.of]
    mine = part.of_jobs(jobs)
    files = [part.record_name, *(job.name for job in mine)]
    with new_folder(out) as folder, only_packer(folder, part):
        begin_or_continue(folder, sources, options, jobs, own_files=files)
        with keeping_what_is_done(folder, mine, is_alone=False):
            look = MemberLook(sources, others, options.pixels)
            refuse_unfit(look, mine, folder, num_workers=num_workers, progress=progress)
            writer = ShardWriter(quick(sources, folder) if mine else sources, folder, options)
            written = writer.write_all(mine, num_workers=num_workers, progress=progress)
            done = zip(mine, numbers, written, strict=True)
            shards = tuple(record_of(job, number, shard) for job, number, shard in done)
            is_first = part.number == 1
            record = PartRecord(
                part,
                plan_digest(folder),
                tuple(sources),
                tuple(classes) if is_first else (),
                tuple(left_out) if is_first else (),
                shards,
            )
            write_record(folder, record)
    skipped = [image for shard in shards for image in shard.skipped]
    return PartReport(len(mine), len(jobs), sum(s.num_samples for s in shards), skipped)


def holds_parts(folder: Path) -> bool:
    """Return whether a folder holds parts that are still to be joined.

    Args:
        folder: A folder of shards.
    """
    return (folder / PLAN_NAME).exists() and bool(record_files(folder))


def join_parts(folder: Path, *, num_workers: int = 0, progress: bool = True) -> PackReport:
    """Join the parts of a packing: write the index, and remove what only parts need.

    Args:
        folder: Folder of the shards of all parts.
        num_workers: Number of processes that look into shards; 0 is this one.
        progress: Whether to show how far it is.

    Raises:
        UserError: If a part is missing, was packed by another plan or is being packed, or a shard
            is not what its part wrote.
    """
    with only_packer(folder, None):
        records = [read_record(path) for path in record_files(folder)]
        found = _covered(folder, records)
        shards = [shard for _, shard in found if shard.num_samples]
        looks = ordered_map(partial(_look, folder), found, num_workers=num_workers)
        shown = followed(looks, "joining", len(found), "shards", show=progress)
        scanned = [scan for scan in shown if scan is not None]
        names = (INDEX_NAME, EXTENTS_NAME, MEMBERS_NAME, SKIPPED_NAME, PLAN_NAME)
        own = [record.part.record_name for record in records]
        remove_leftovers(folder, [*names, *own, *(shard.name for _, shard in found)])
        by_split: dict[str, list[ScannedShard]] = {}
        for shard, scan in zip(shards, scanned, strict=True):
            by_split.setdefault(shard.split, []).append(scan)
        _check_no_split_is_empty(records[0].splits, by_split, found)
        skipped = [image for _, shard in found for image in shard.skipped]
        first = next(record for record in records if record.part.number == 1)
        index = finish(folder, first.classes, by_split, [*skipped, *first.left_out])
    num_not_finite = sum(shard.num_not_finite for _, shard in found)
    return PackReport(index, sum(map(index.num_samples, index.splits)), skipped, num_not_finite)


_Found = tuple[Part, ShardRecord]


def _covered(folder: Path, records: Sequence[PartRecord]) -> list[_Found]:
    """Return all shards of the plan, in its order, with the part that wrote each."""
    digest, num_shards = plan_digest(folder), read_plan(folder / PLAN_NAME)["num_shards"]
    for record in records:
        if record.plan_digest != digest:
            raise UserError(
                f"part {record.part} in {folder} was packed by another plan: pack it again, from "
                "the same images and with the same options as the others"
            )
    found = {shard.number: (record.part, shard) for record in records for shard in record.shards}
    absent = [number for number in range(num_shards) if number not in found]
    if absent:
        raise UserError(
            f"{folder} cannot be joined yet: {_missing_parts(records, absent)}, {len(absent)} of "
            f"{num_shards} shards. Pack what is missing, and join again"
        )
    return [found[number] for number in range(num_shards)]


def _missing_parts(records: Sequence[PartRecord], absent: Sequence[int]) -> str:
    """Return which parts are missing, in the number of parts that most records have."""
    ((of, _),) = Counter(record.part.of for record in records).most_common(1)
    parts = [f"{number}/{of}" for number in sorted({number % of + 1 for number in absent})]
    verb = "part {} is missing" if len(parts) == 1 else "parts {} are missing"
    return verb.format(some(parts, 10))


def _look(folder: Path, found: _Found) -> ScannedShard | None:
    """Scan a shard, and make sure that it is the one that was written; None for an empty one."""
    part, shard = found
    if not shard.num_samples:
        return None
    way = f"Pack part {part} again, and join then"
    try:
        scanned = scan_shard(folder / shard.name)
    except UserError as error:
        raise UserError(f"{error}. {way}") from error
    if (scanned.shard.num_bytes, scanned.shard.num_samples) != (shard.num_bytes, shard.num_samples):
        raise UserError(f"shard {folder / shard.name} is not what part {part} wrote. {way}")
    return scanned


def _check_no_split_is_empty(
    splits: Sequence[str],
    by_split: Mapping[str, Sequence[ScannedShard]],
    found: Sequence[_Found],
) -> None:
    for split in splits:
        if split not in by_split:
            name, reason = next(s.skipped[0] for _, s in found if s.split == split)
            raise UserError(
                f"no readable image in {split}: all were left out, the first is {name} ({reason})"
            )

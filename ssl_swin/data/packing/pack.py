"""Packing images into WebDataset shards, in an order shuffled once and for all."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import IMAGE, MASK
from ssl_swin.data.file_types import an_image_in
from ssl_swin.data.images.decode import AS_STORED
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.member_check import ANY_VALUES, MemberCheck
from ssl_swin.data.packing.locks import only_packer
from ssl_swin.data.packing.member_look import MemberLook, refuse_unfit
from ssl_swin.data.packing.part import record_files
from ssl_swin.data.packing.plan import (
    SKIPPED_NAME,
    PackOptions,
    ShardJob,
    begin_or_continue,
    plan_jobs,
    remove_leftovers,
)
from ssl_swin.data.packing.shard_writer import ShardWriter, SkippedImage, WrittenShard
from ssl_swin.data.packing.shrink import JPEG_QUALITY
from ssl_swin.data.shards.index_file import PLAN_NAME, ScannedShard, ShardIndex, write_index
from ssl_swin.data.sources.class_names import common_classes
from ssl_swin.data.sources.left_out import LeftOut
from ssl_swin.data.sources.tables import TableDataset
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder, write_atomically

UNPACKED_NAME = ".unpacked"  # folder for images of parquet files while packing goes on


@dataclass(frozen=True)
class PackReport:
    """The result of a packing."""

    index: ShardIndex
    num_packed: int
    skipped: list[SkippedImage]  # in the order of the plan
    num_not_finite: int = 0  # packed images that hold values that are not finite


def pack(
    sources: Mapping[str, ImageDataset],
    out: str | Path,
    *,
    shard_samples: int | None = None,
    val_ratio: float = 0.0,
    seed: int = 0,
    max_short_side_px: int | None = None,
    verify: bool = False,
    jpeg_quality: int = JPEG_QUALITY,
    pixels: PixelFormat = AS_STORED,
    num_workers: int = 2,
    progress: bool = True,
    left_out: Sequence[LeftOut] = (),
    others: MemberCheck = ANY_VALUES,
) -> PackReport:
    """Pack every readable sample once, and write the index last.

    The same sources, seed and options give the same bytes, also after any number of times that the
    process was killed: the plan is written first and removed last, and the same call goes on where
    the last one ended. Images that cannot be read are left out, and listed in `skipped.txt`.

    Pixels are taken as they are stored, as in training: without the rotation that EXIF asks for
    and without colour profiles.

    Args:
        sources: Data sets by split. Parquet files are unpacked to `out` first, where their images
            take their size once more as long as packing goes on.
        out: Folder for the shards, created if need be.
        shard_samples: Number of images per shard, before unreadable ones are left out. The default
            is 1000, or fewer where that would make fewer than 16 shards to deal out to processes.
        val_ratio: Fraction of the train split to hold out as "val", rounded up to whole images, in
            [0, 1). Without effect if there is a "val" split.
        seed: Seed of the order and of the choice of held-out images.
        max_short_side_px: Images with a longer shorter side are scaled down to it, with their
            masks and boxes (`data/packing/shrink.py`); None keeps every image to the byte.
        verify: Whether to decode every image in full; otherwise only headers are looked at, and
            the values of arrays and of floats.
        jpeg_quality: Quality of scaled JPEG files, from 1 to 100.
        pixels: Largest image to take and, for scaling, where arrays have their channels and what
            takes the place of pixels without data.
        num_workers: Number of processes that write shards; 0 writes them in this one.
        progress: Whether to show how far it is.
        left_out: Files beside the images that were not taken, to be listed in `skipped.txt` too.
        others: What masks and boxes are held against; by default their classes may be anything.

    Raises:
        UserError: If `out` holds shards, holds a packing that was begun with other options, is
            being packed to or cannot be written to; if an option is out of range, splits differ in
            their classes, a mask or boxes do not fit an image or are of no class, or a split has no
            readable image.
    """
    options = PackOptions(
        shard_samples,
        val_ratio,
        seed,
        max_short_side_px,
        verify,
        jpeg_quality,
        pixels,
    )
    classes = check_sources(sources, options, num_workers)
    jobs = plan_jobs(sources, options)
    with new_folder(out) as folder, only_packer(folder, None):
        begin_or_continue(folder, sources, options, jobs)
        with keeping_what_is_done(folder, jobs):
            look = MemberLook(sources, others, pixels)
            refuse_unfit(look, jobs, folder, num_workers=num_workers, progress=progress)
            writer = ShardWriter(quick(sources, folder), folder, options)
            written = writer.write_all(jobs, num_workers=num_workers, progress=progress)
            skipped = [image for shard in written for image in shard.skipped]
            scanned = _by_split(sources, jobs, written)
            index = finish(folder, classes, scanned, [*skipped, *left_out])
    num_not_finite = sum(shard.num_not_finite for shard in written)
    return PackReport(index, sum(map(index.num_samples, index.splits)), skipped, num_not_finite)


def finish(
    folder: Path,
    classes: Sequence[str],
    scanned: Mapping[str, Sequence[ScannedShard]],
    left_out: Sequence[SkippedImage | LeftOut],
) -> ShardIndex:
    """Write what is written last, and remove what is of no use any more.

    Args:
        folder: Folder of the shards.
        classes: Class names by label.
        scanned: The shards of each split, in order.
        left_out: What is listed in `skipped.txt`.
    """
    if left_out:
        _write_skipped(folder / SKIPPED_NAME, left_out)
    index = write_index(folder, classes, scanned)
    shutil.rmtree(folder / UNPACKED_NAME, ignore_errors=True)
    (folder / PLAN_NAME).unlink()
    for record in record_files(folder):
        record.unlink()
    return index


def check_out(images: Path, out: Path) -> None:
    """Refuse to put shards among images.

    Args:
        images: The folder or file of images.
        out: Folder for the shards.

    Raises:
        UserError: If `out` is the folder of the images or one around it, or holds images.
    """
    way = f"Choose a folder of its own, such as {images.absolute().name or 'images'}_shards"
    if out.exists() and images.exists() and out.samefile(images):
        raise UserError(f"{out} is the folder of the images; shards would lie among them. {way}")
    if not out.is_dir():
        return
    for place in (Path("/"), Path.home()):
        if place.exists() and out.samefile(place):
            raise UserError(
                f"{out} is no folder of its own: shards would lie among all else. {way}"
            )
    if out.resolve() in images.resolve().parents:
        raise UserError(
            f"{out} holds {images}, and shards of it would lie beside what they are made of. {way}"
        )
    if image := an_image_in(out):
        raise UserError(f"{out} holds images ({image}); shards would lie among them. {way}")


def check_sources(
    sources: Mapping[str, ImageDataset], options: PackOptions, num_workers: int
) -> tuple[str, ...]:
    """Refuse what cannot be packed, and return the names of the classes.

    Args:
        sources: Data sets by split.
        options: What the bytes of the shards depend on besides.
        num_workers: Number of processes.

    Raises:
        UserError: If the splits differ in their classes, an option does not fit the samples, or
            the number of workers is negative.
    """
    if num_workers < 0:
        raise UserError(f"the number of workers must not be negative, got {num_workers}")
    if options.max_short_side_px is not None:
        _check_can_be_scaled(sources)
    return common_classes(sources)


def _check_can_be_scaled(sources: Mapping[str, ImageDataset]) -> None:
    for split, dataset in sources.items():
        others = [name for name in dataset.members if name not in (IMAGE, MASK, BOXES)]
        if others:
            raise UserError(
                f"{split} has samples with {', '.join(others)}; scaling down changes images, masks "
                "and boxes, and what others hold may no longer fit. Pack it without "
                "--max-short-side-px"
            )


@contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """Make the folder; after a failure that leaves it empty it is deleted again."""
    was_there = Path(out).exists()
    folder = make_folder(out)
    try:
        yield folder
    except BaseException:
        if not was_there:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        raise


@contextmanager
def keeping_what_is_done(
    folder: Path, jobs: Sequence[ShardJob], *, is_alone: bool = True
) -> Iterator[None]:
    """Add to a failure how to continue; without anything to keep, the plan is deleted too.

    Args:
        folder: Folder of the shards.
        jobs: The shards that this process writes.
        is_alone: Whether nobody else follows the plan.
    """
    try:
        yield
    except BaseException as error:
        remove_leftovers(folder, [job.name for job in jobs])  # of workers, which have ended
        num_done = sum((folder / job.name).exists() for job in jobs)
        if not num_done and not (folder / UNPACKED_NAME).exists():
            if is_alone and not record_files(folder):
                (folder / PLAN_NAME).unlink(missing_ok=True)
            raise
        note = f"{num_done} of {len(jobs)} shards are done: the same command goes on from there"
        if isinstance(error, UserError):
            raise UserError(f"{error}. {note}") from error
        error.add_note(note)
        raise


def quick(sources: Mapping[str, ImageDataset], folder: Path) -> dict[str, ImageDataset]:
    """Replace sources that are slow to read out of order; of several packers, one does it.

    Args:
        sources: Data sets by split.
        folder: Folder of the shards, where tables are unpacked to.
    """
    if not any(isinstance(source, TableDataset) for source in sources.values()):
        return dict(sources)
    with FileLock(make_folder(folder / UNPACKED_NAME) / ".lock"):
        return {
            split: source.unpacked(folder / UNPACKED_NAME / split)
            if isinstance(source, TableDataset)
            else source
            for split, source in sources.items()
        }


def _by_split(
    sources: Mapping[str, ImageDataset], jobs: Sequence[ShardJob], written: Sequence[WrittenShard]
) -> dict[str, list[ScannedShard]]:
    splits: dict[str, list[ScannedShard]] = {}
    for job, shard in zip(jobs, written, strict=True):
        if shard.scanned.shard.num_samples:
            splits.setdefault(job.split, []).append(shard.scanned)
    for split in sources:
        if split not in splits:
            done = zip(jobs, written, strict=True)
            name, reason = next(shard.skipped[0] for job, shard in done if job.split == split)
            raise UserError(
                f"no readable image in {split}: all were left out, the first is {name} ({reason})"
            )
    return splits


def _write_skipped(path: Path, skipped: Sequence[SkippedImage | LeftOut]) -> None:
    lines = "".join(f"{' '.join(name.splitlines())}: {reason}\n" for name, reason in skipped)
    write_atomically(path, lines.encode(errors="surrogateescape"))

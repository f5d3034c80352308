"""Packing images into WebDataset shards, in an order shuffled once and for all (L1)."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.index import INDEX_NAME, PLAN_NAME, Shard, ShardIndex, write_index
from ssl_swin.data.shard_writer import ShardJob, SkippedImage, WrittenShard, write_shards
from ssl_swin.data.sources import Source, common_classes
from ssl_swin.errors import UserError
from ssl_swin.files import make_folder, write_atomically

MOST_SHARD_SAMPLES = 1000
FEWEST_SHARDS = 16  # so that a small set can be dealt out to several processes
SKIPPED_NAME = "skipped.txt"


@dataclass(frozen=True)
class PackReport:
    """What came of a packing."""

    index: ShardIndex
    num_packed: int
    skipped: list[SkippedImage]  # in the order of the plan


def pack(
    sources: Mapping[str, Source],
    out: str | Path,
    *,
    shard_samples: int | None = None,
    val_ratio: float = 0.0,
    seed: int = 0,
    num_workers: int = 2,
    progress: bool = True,
) -> PackReport:
    """Packs every readable image once, and writes the index last.

    The same sources, seed and options give the same bytes. Images whose header PIL cannot read are
    left out, and listed in `skipped.txt` beside the shards. If anything fails, what was written is
    removed again.

    Args:
        sources: By split.
        out: Folder for the shards, created if need be.
        shard_samples: Images per shard, before unreadable ones are left out. The default is 1000,
            or fewer where that would make fewer than 16 shards to deal out to processes.
        val_ratio: Fraction of the train split to hold out as "val", rounded up to whole images, in
            [0, 1). Without effect if there is a "val" split.
        seed: Of the order and of the choice of held-out images.
        num_workers: Processes that write shards; 0 writes them in this one.
        progress: Whether to show a progress bar.

    Raises:
        UserError: If `out` holds shards or cannot be written to, an option is out of range, splits
            differ in their classes, or a split has no readable image.
    """
    _check_options(shard_samples, val_ratio, seed, num_workers)
    classes = common_classes(sources)
    plan = _plan(sources, shard_samples, val_ratio, seed)
    was_there = Path(out).exists()
    folder = make_folder(out)
    _check_vacant(folder)
    try:
        _write_plan(folder, sources, shard_samples, val_ratio, seed)
        written = write_shards(plan, sources, folder, num_workers=num_workers, progress=progress)
        skipped = [image for shard in written for image in shard.skipped]
        index = ShardIndex(folder, classes, _by_split(sources, plan, written))
        if skipped:
            _write_skipped(folder / SKIPPED_NAME, skipped)
        write_index(index)
    except BaseException:
        _discard(folder, plan, keep_folder=was_there)
        raise
    (folder / PLAN_NAME).unlink()
    return PackReport(index, sum(map(index.num_samples, index.splits)), skipped)


def _check_options(
    shard_samples: int | None, val_ratio: float, seed: int, num_workers: int
) -> None:
    if shard_samples is not None and shard_samples < 1:
        raise UserError(f"images per shard must be at least 1, got {shard_samples}")
    if not 0 <= val_ratio < 1:
        raise UserError(f"the ratio to hold out must be in [0, 1), got {val_ratio}")
    if seed < 0:
        raise UserError(f"the seed must not be negative, got {seed}")
    if num_workers < 0:
        raise UserError(f"the number of workers must not be negative, got {num_workers}")


def _check_vacant(folder: Path) -> None:
    if (folder / PLAN_NAME).exists():
        raise UserError(f"{folder} holds a packing cut short. Choose an empty folder, or delete it")
    if (folder / INDEX_NAME).exists() or any(folder.glob("*.tar")):
        raise UserError(f"{folder} already holds shards. Choose an empty folder, or delete them")


def _plan(
    sources: Mapping[str, Source], shard_samples: int | None, val_ratio: float, seed: int
) -> list[ShardJob]:
    """Decides for every image its split, shard and place."""
    orders = {split: (split, _permutation(len(source), seed)) for split, source in sources.items()}
    if val_ratio > 0 and "train" in sources and "val" not in sources:
        _, order = orders["train"]
        num_held_out = math.ceil(val_ratio * len(order))
        if num_held_out == len(order):
            raise UserError(
                f"holding out {val_ratio} of {len(order)} images leaves none to train on; hold out "
                "none: --val-ratio 0"
            )
        orders["train"] = ("train", order[num_held_out:])
        orders["val"] = ("train", order[:num_held_out])
    return [
        ShardJob(split, source, number, first, order[first : first + length])
        for split, (source, order) in orders.items()
        for length in [shard_samples or _default_shard_samples(len(order))]
        for number, first in enumerate(range(0, len(order), length))
    ]


def _default_shard_samples(num_images: int) -> int:
    return max(1, min(MOST_SHARD_SAMPLES, math.ceil(num_images / FEWEST_SHARDS)))


def _permutation(length: int, seed: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(seed)).permutation(length)


def _write_plan(
    folder: Path,
    sources: Mapping[str, Source],
    shard_samples: int | None,
    val_ratio: float,
    seed: int,
) -> None:
    fingerprints = {split: source.fingerprint for split, source in sources.items()}
    plan = {
        "sources": fingerprints,
        "shard_samples": shard_samples,
        "val_ratio": val_ratio,
        "seed": seed,
    }
    write_atomically(folder / PLAN_NAME, json.dumps(plan, indent=1) + "\n")


def _by_split(
    sources: Mapping[str, Source], plan: list[ShardJob], written: list[WrittenShard]
) -> dict[str, tuple[Shard, ...]]:
    splits: dict[str, list[Shard]] = {}
    for job, (shard, _) in zip(plan, written, strict=True):
        if shard.num_samples:
            splits.setdefault(job.split, []).append(shard)
    for split in sources:
        if split not in splits:
            skipped = [image for _, images in written for image in images]
            raise UserError(
                f"no readable image in {split}: all were left out, the first is {skipped[0].name} "
                f"({skipped[0].reason})"
            )
    return {split: tuple(shards) for split, shards in splits.items()}


def _write_skipped(path: Path, skipped: list[SkippedImage]) -> None:
    lines = "".join(f"{' '.join(name.splitlines())}: {reason}\n" for name, reason in skipped)
    write_atomically(path, lines.encode(errors="surrogateescape"))


def _discard(folder: Path, plan: list[ShardJob], keep_folder: bool) -> None:
    for name in (*(job.name for job in plan), SKIPPED_NAME, PLAN_NAME, INDEX_NAME):
        (folder / name).unlink(missing_ok=True)
    if not keep_folder:
        with suppress(OSError):  # somebody else has put something there
            folder.rmdir()

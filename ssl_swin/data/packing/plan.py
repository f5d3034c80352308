"""The plan of a packing: which image goes where, decided before the first is read."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.images.decode import AS_STORED
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.packing.shrink import JPEG_QUALITY
from ssl_swin.data.rng import keyed_permutation
from ssl_swin.data.shards.index_file import EXTENTS_NAME, INDEX_NAME, MEMBERS_NAME, PLAN_NAME
from ssl_swin.errors import UserError
from ssl_swin.files import write_once

MOST_SHARD_SAMPLES = 1000
FEWEST_SHARDS = 16  # so that a small set can be dealt out to several processes
SKIPPED_NAME = "skipped.txt"

_VERSION = 2  # to be raised when the same plan begins to give other bytes


@dataclass(frozen=True)
class PackOptions:
    """What the bytes of the shards depend on, beside the images.

    Raises:
        UserError: If one is out of its range.
    """

    shard_samples: int | None = None
    val_ratio: float = 0.0
    seed: int = 0
    max_short_side_px: int | None = None
    verify: bool = False
    jpeg_quality: int = JPEG_QUALITY
    pixels: PixelFormat = AS_STORED

    def __post_init__(self) -> None:
        if self.shard_samples is not None and self.shard_samples < 1:
            raise UserError(f"images per shard must be at least 1, got {self.shard_samples}")
        if not 0 <= self.val_ratio < 1:
            raise UserError(f"the ratio to hold out must be in [0, 1), got {self.val_ratio}")
        if self.seed < 0:
            raise UserError(f"the seed must not be negative, got {self.seed}")
        if self.max_short_side_px is not None and self.max_short_side_px < 1:
            raise UserError(f"the shorter side must be at least 1 px, got {self.max_short_side_px}")
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(f"the quality of JPEG must be from 1 to 100, got {self.jpeg_quality}")


class ShardJob(NamedTuple):
    """One shard to be written."""

    split: str
    source: str  # of which split; for held-out images it is "train"
    number: int  # of the shard in its split
    first: int  # place of its first image in the split
    images: NDArray[np.int64]  # which images of the source, in order

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.split}-{self.number:06d}.tar"

    def key(self, place: int) -> str:
        """What the files of the image at a place of the split are called."""
        return f"{self.split}-{place:09d}"


def plan_jobs(sources: Mapping[str, ImageDataset], options: PackOptions) -> list[ShardJob]:
    """Decide for every image its split, shard and place.

    Raises:
        UserError: If holding out images leaves none to train on.
    """
    orders = {
        split: (split, keyed_permutation(len(source), options.seed, "packing", split))
        for split, source in sources.items()
    }
    if options.val_ratio > 0 and "train" in sources and "val" not in sources:
        _, order = orders["train"]
        num_held_out = math.ceil(options.val_ratio * len(order))
        if num_held_out == len(order):
            raise UserError(
                f"holding out {options.val_ratio} of {len(order)} images leaves none to train on; "
                "hold out none: --val-ratio 0"
            )
        orders["train"] = ("train", order[num_held_out:])
        orders["val"] = ("train", order[:num_held_out])
    return [
        ShardJob(split, source, number, first, order[first : first + length])
        for split, (source, order) in orders.items()
        for length in [options.shard_samples or _default_shard_samples(len(order))]
        for number, first in enumerate(range(0, len(order), length))
    ]


def begin_or_continue(
    folder: Path,
    sources: Mapping[str, ImageDataset],
    options: PackOptions,
    jobs: Sequence[ShardJob],
    *,
    own_files: Sequence[str] | None = None,
) -> None:
    """Write the plan to an empty folder, or make sure that the folder's plan is the same.

    Half-written files of processes that were killed are removed.

    Args:
        folder: Folder of the shards.
        sources: The data sets.
        options: What the bytes of the shards depend on besides.
        jobs: All shards.
        own_files: Names of the files that this process writes, beside others that write theirs;
            None if there are no others.

    Raises:
        UserError: If the folder holds a finished set, or a packing begun with other options.
    """
    plan = _describe(sources, options, len(jobs))
    path = folder / PLAN_NAME
    if not path.exists():
        is_used = (folder / INDEX_NAME).exists() or any(folder.glob("*.tar"))
        if is_used and not path.exists():  # another process may have begun just now
            raise UserError(
                f"{folder} already holds shards. Choose an empty folder, or delete them"
            )
        if not is_used:
            write_once(path, json.dumps(plan, indent=1) + "\n")
    _check_same(folder, read_plan(path), plan)
    remove_leftovers(folder, all_files(jobs) if own_files is None else own_files)


def all_files(jobs: Sequence[ShardJob]) -> list[str]:
    """Return the names of all files that packing writes.

    Args:
        jobs: All shards.
    """
    others = (INDEX_NAME, EXTENTS_NAME, MEMBERS_NAME, SKIPPED_NAME, PLAN_NAME)
    return [*others, *(job.name for job in jobs)]


def _default_shard_samples(num_images: int) -> int:
    return max(1, min(MOST_SHARD_SAMPLES, math.ceil(num_images / FEWEST_SHARDS)))


def _describe(
    sources: Mapping[str, ImageDataset], options: PackOptions, num_shards: int
) -> dict[str, Any]:
    described = {
        split: {"images": len(source), "fingerprint": source.fingerprint}
        for split, source in sources.items()
    }
    plan = {"version": _VERSION, "sources": described, **asdict(options), "num_shards": num_shards}
    described_plan: dict[str, Any] = json.loads(json.dumps(plan))  # as it is read back
    return described_plan


def read_plan(path: Path) -> dict[str, Any]:
    """Read a plan.

    Raises:
        UserError: If it cannot be read, or is something else.
    """
    try:
        plan = json.loads(path.read_bytes())
        if not isinstance(plan, dict):
            raise ValueError("it is no plan")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"cannot read {path} ({error}). Delete the folder, or choose another"
        ) from error
    return plan


def _check_same(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    was, now = dict(_flat(old)), dict(_flat(new))
    changes = [
        f"{key} was {was.get(key)}, is {now.get(key)}"
        for key in sorted(was.keys() | now.keys())
        if was.get(key) != now.get(key)
    ]
    if changes:
        raise UserError(
            f"{folder} holds an interrupted packing that was begun with other options: "
            f"{'; '.join(changes)}. "
            "Continue it with what it was begun with, choose another folder, or delete this one"
        )


def _flat(plan: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plan.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def remove_leftovers(folder: Path, names: Sequence[str]) -> None:
    """Remove the temporary files of processes that were killed.

    Args:
        folder: Folder of the shards.
        names: Names of the files whose temporary files nobody is writing now.
    """
    known = {*names}
    for path in folder.glob(".*.tmp"):  # .NAME.RANDOM.tmp, as files.atomic_path has it
        if path.name[1:].rsplit(".", 2)[0] in known:
            path.unlink(missing_ok=True)

"""A look at all masks and boxes before anything is packed, so that a user learns of all at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.dataset import DatasetWrapper, ImageDataset
from ssl_swin.data.encoded import MASK
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.member_check import MemberCheck
from ssl_swin.data.no_class import NoClass
from ssl_swin.data.packing.plan import ShardJob
from ssl_swin.data.parallel import ordered_map
from ssl_swin.data.sources.boxes.dataset import BoxDataset
from ssl_swin.display.work import Work
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted

MOST_SHOWN = 3  # samples in a message


@dataclass(frozen=True)
class MemberLook:
    """Looks at the masks and boxes of the samples of a shard.

    Attributes:
        sources: The data sets, by the names that jobs use.
        others: What masks and boxes are held against.
        pixels: How images are read.
    """

    sources: Mapping[str, ImageDataset]
    others: MemberCheck
    pixels: PixelFormat

    def __call__(self, job: ShardJob) -> list[str]:
        """Return what is wrong with the samples of a shard that is to be written."""
        problems = []
        for index in job.images.tolist():
            try:
                encoded = self.sources[job.source][index]
                problem = self.others.problem(encoded, self.pixels)
            except NoClass as error:
                problem = error.problem
            except (OSError, ValueError):  # the image cannot be read, which its packing tells
                continue
            if problem:
                problems.append(f"{job.source}: {problem}")
        return problems


def refuse_unfit(
    look: MemberLook,
    jobs: Sequence[ShardJob],
    folder: Path,
    *,
    num_workers: int,
    progress: bool,
) -> None:
    """Refuse samples whose masks or boxes do not fit, after a look at all of them.

    Args:
        look: Looks at those of a shard.
        jobs: The shards to be written; those that are there have been looked at.
        folder: Folder of the shards.
        num_workers: Number of processes; 0 is this one.
        progress: Whether to show how far it is.

    Raises:
        UserError: Naming the first ones, and how many there are.
    """
    jobs = [
        job
        for job in jobs
        if _may_be_unfit(look.sources[job.source]) and not (folder / job.name).exists()
    ]
    if not jobs:
        return
    problems: list[str] = []
    with Work(
        "looking at masks and boxes", sum(len(j.images) for j in jobs), show=progress
    ) as work:
        results = ordered_map(look, jobs, num_workers=num_workers)
        for job, found in zip(jobs, results, strict=True):
            problems += found
            work.advance(len(job.images))
    if not problems:
        return
    more = len(problems) - MOST_SHOWN
    ending = f"; and {counted(more, 'other')}" if more > 0 else ""
    raise UserError(
        f"{counted(len(problems), 'image')} cannot be packed: "
        f"{'; '.join(problems[:MOST_SHOWN])}{ending}. Mend the files; where masks hold other "
        "values than classes: --ignore-value, --reduce-zero-label, --class-of or --class-of-colour"
    )


def _may_be_unfit(source: ImageDataset) -> bool:
    """Return whether there is something to look at; readers of boxes have looked at theirs."""
    inner = source
    while isinstance(inner, DatasetWrapper):
        inner = inner.dataset
    return not isinstance(inner, BoxDataset) and bool({MASK, BOXES} & {*source.members})

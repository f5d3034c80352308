"""What became of masks and boxes that lie beside images, and how it is told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.encoded import MASK
from ssl_swin.data.sources.left_out import LeftOut, some


class Pairing(NamedTuple):
    """What was paired with what."""

    member: str
    files: str  # where the masks lie
    images: str  # where the images lie
    num_files: int
    num_images: int  # that have one


@dataclass
class Pairs:
    """The result of pairing the files of a folder.

    Attributes:
        pairings: What was paired with what.
        without: Paths of images without a mask that lie among images with one.
        left_out: Masks and other files that belong to no image.
    """

    pairings: list[Pairing] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def report_pairs(pairs: Pairs) -> list[str]:
    """Return lines on what was paired, and on images and masks that have no partner."""
    lines = []
    for pairing in _summed(pairs.pairings):
        title = {MASK: "masks", BOXES: "boxes"}.get(pairing.member, f"member {pairing.member}")
        lines.append(
            f"{title}: {pairing.num_files} of {pairing.files} pair with {pairing.num_images} of "
            f"{pairing.images}"
        )
    if pairs.without:
        noun = "image has" if len(pairs.without) == 1 else "images have"
        lines.append(f"without a mask: {len(pairs.without)} {noun} none ({some(pairs.without)})")
    if pairs.left_out:
        names = [file.name for file in pairs.left_out]
        reasons = sorted({file.reason for file in pairs.left_out})
        noun = "file that belongs" if len(names) == 1 else "files that belong"
        lines.append(
            f"left out: {len(names)} {noun} to images ({some(names)}): {'; '.join(reasons)}"
        )
    return lines


def _summed(pairings: Sequence[Pairing], most: int = 4) -> Iterator[Pairing]:
    """Join pairings of one kind if there are too many to be reported one by one."""
    if len(pairings) <= most:
        yield from pairings
        return
    for member in dict.fromkeys(pairing.member for pairing in pairings):
        group = [pairing for pairing in pairings if pairing.member == member]
        first = group[0]
        yield Pairing(
            member,
            f"{first.files} and {len(group) - 1} more places" if len(group) > 1 else first.files,
            f"{first.images} and so on" if len(group) > 1 else first.images,
            sum(pairing.num_files for pairing in group),
            sum(pairing.num_images for pairing in group),
        )

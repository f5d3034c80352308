"""What is wrong with one sample: its image, and the mask and boxes that belong to it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from ssl_swin.data.box_check import useless_boxes
from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.encoded import MASK, EncodedSample
from ssl_swin.data.images.decode import decode_marked
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.member_check import MemberCheck, size_in_px


class Problem(NamedTuple):
    """Something wrong with a sample."""

    kind: str  # as that of a `Finding`
    text: str


@dataclass(frozen=True)
class SampleCheck:
    """What samples are held against.

    Attributes:
        decode: Whether to decode images, masks and boxes; else only what is not there is told.
        pixels: How images are read.
        others: What masks and boxes are held against.
        members: Members that the others of the set have.
    """

    decode: bool
    pixels: PixelFormat
    others: MemberCheck
    members: tuple[str, ...]

    def problems(self, encoded: EncodedSample) -> Iterator[Problem]:
        """Find what is wrong with a sample.

        Args:
            encoded: The sample.

        Raises:
            ValueError: If its image cannot be read.
        """
        for member in (MASK, BOXES):
            if member in self.members and member not in encoded.members:
                words = "mask" if member == MASK else "list of boxes"
                yield Problem("missing", f"{encoded.name} has no {words}, and others have one")
        if not self.decode:
            return
        any_axis = self.pixels
        if any_axis.channel_axis is None:  # whether an array can be read, no axis decides
            any_axis = replace(any_axis, channel_axis="first")
        if decode_marked(encoded.data, any_axis, name=encoded.name).missing is not None:
            yield Problem(
                "values", f"{encoded.name} holds values that are not finite: set data.fill"
            )
        if problem := self.others.of_mask(encoded, self.pixels):
            yield Problem("mask", problem)
        if problem := self.others.of_boxes(encoded, self.pixels):
            yield Problem("boxes", problem)
        elif BOXES in encoded.members:
            size_px = size_in_px(encoded.data, self.pixels)
            if size_px is not None and (problem := useless_boxes(encoded, size_px)):
                yield Problem("useless", problem)

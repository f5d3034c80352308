"""From an encoded sample to the image as it is stored, with its truth where that can be read."""

from collections.abc import Callable
from typing import NamedTuple

from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sample import Sample
from ssl_swin.errors import UserError

ReadTruth = Callable[[EncodedSample, PixelFormat], Sample]


class WholeSample(NamedTuple):
    """An image at its own size.

    Attributes:
        sample: Pixels, and the truth where there is one that could be read.
        has_truth: Whether it was.
        problem: Why it was not; empty where there is none to read.
    """

    sample: Sample
    has_truth: bool = False
    problem: str = ""


class WholeTransform:
    """Decodes an image, and its truth: a truth that is damaged costs no image."""

    def __init__(self, pixels: PixelFormat, member: str, read: ReadTruth) -> None:
        """Set the transform up.

        Args:
            pixels: What a decoded image is.
            member: Member of a sample that holds its truth.
            read: Decodes the image with that.
        """
        self.pixels = pixels
        self.member = member
        self.read = read

    def __call__(self, encoded: EncodedSample, epoch: int) -> WholeSample:
        """Decode an encoded sample; the epoch changes nothing.

        Raises:
            UserError: If the image cannot be decoded.
        """
        if self.member not in encoded.members:
            return WholeSample(decode_sample(encoded, self.pixels))
        try:
            return WholeSample(self.read(encoded, self.pixels), has_truth=True)
        except UserError as error:
            return WholeSample(decode_sample(encoded, self.pixels), problem=str(error))

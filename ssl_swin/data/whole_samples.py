"""From an encoded sample to the image as it is stored, with its truth where that can be read."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError


class WholeSample(NamedTuple):
    """An image at its own size.

    Attributes:
        pixels: uint8, uint16 or float32 (C, H, W).
        name: Of the image in its set.
        truth: What is known to be in it; None where there is nothing, or it could not be read.
        problem: Why it could not; empty where there is nothing to read.
    """

    pixels: Tensor
    name: str
    truth: Any = None
    problem: str = ""


ReadTruth = Callable[[EncodedSample, PixelFormat], tuple[Tensor, Any]]  # pixels and truth


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
            return WholeSample(self._pixels(encoded), encoded.name)
        try:
            pixels, truth = self.read(encoded, self.pixels)
        except UserError as error:
            return WholeSample(self._pixels(encoded), encoded.name, problem=str(error))
        return WholeSample(pixels, encoded.name, truth)

    def _pixels(self, encoded: EncodedSample) -> Tensor:
        return decode_sample(encoded, self.pixels).pixels

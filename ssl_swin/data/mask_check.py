"""Whether the mask of a sample fits: its file, its size and its values."""

from dataclasses import dataclass

from ssl_swin.data.decoding import check_mask_size, decode_mask
from ssl_swin.data.encoded import MASK, EncodedSample
from ssl_swin.data.images.axes import AmbiguousAxes
from ssl_swin.data.images.decode import probe_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.data.no_class import NoClass
from ssl_swin.errors import UserError


@dataclass(frozen=True)
class MaskCheck:
    """What masks are held against.

    Attributes:
        masks: What their values stand for.
        num_classes: Number of classes; None where values may be anything.
    """

    masks: MaskClasses
    num_classes: int | None

    def problem(self, encoded: EncodedSample, pixels: PixelFormat) -> str:
        """Return what is wrong with the mask of a sample, with the sample's name; "" for nothing.

        Args:
            encoded: The sample; one without a mask is none with a wrong one.
            pixels: How images are read, for the size of this one.

        Raises:
            ValueError: If the image cannot be read.
        """
        if MASK not in encoded.members:
            return ""
        try:
            mask = decode_mask(encoded, as_colours=self.masks.are_colours)
            if (size_px := _size_px(encoded.data, pixels)) is not None:
                check_mask_size(mask, size_px, encoded.name)
            if self.num_classes is not None:
                self.masks.read(mask, self.num_classes, encoded.name)
        except NoClass as error:
            return error.problem
        except UserError as error:
            return str(error)
        return ""


ANY_VALUES = MaskCheck(MaskClasses(), None)


def _size_px(data: bytes, pixels: PixelFormat) -> tuple[int, int] | None:
    """Return height and width of an image; None of an array whose axes may be read in two ways."""
    try:
        image = probe_image(data, pixels)
    except AmbiguousAxes:
        return None
    return image.height_px, image.width_px

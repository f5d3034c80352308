"""Whether the mask and boxes of a sample fit: their files, sizes, values and classes."""

from dataclasses import dataclass

from ssl_swin.data.box_check import wrong_boxes
from ssl_swin.data.box_lists import BOXES
from ssl_swin.data.decoding import check_mask_size, decode_mask
from ssl_swin.data.encoded import MASK, EncodedSample
from ssl_swin.data.images.axes import AmbiguousAxes
from ssl_swin.data.images.decode import orientation_of, probe_image
from ssl_swin.data.images.orientation import is_transposed
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.data.no_class import NoClass
from ssl_swin.errors import UserError


@dataclass(frozen=True)
class MemberCheck:
    """What masks and boxes are held against.

    Attributes:
        masks: What the values of masks stand for.
        num_classes: Number of classes; None where values and labels may be anything.
    """

    masks: MaskClasses
    num_classes: int | None

    def problem(self, encoded: EncodedSample, pixels: PixelFormat) -> str:
        """Return what is wrong with the mask or else the boxes of a sample; "" for nothing.

        The masks of single objects are not decoded.

        Args:
            encoded: The sample.
            pixels: How images are read, for the size of this one.

        Raises:
            ValueError: If the image cannot be read.
        """
        of_mask = self.of_mask(encoded, pixels)
        return of_mask or self.of_boxes(encoded, pixels, with_masks=False)

    def of_mask(self, encoded: EncodedSample, pixels: PixelFormat) -> str:
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
            if (size_px := size_in_px(encoded.data, pixels)) is not None:
                check_mask_size(mask, size_px, encoded.name)
            if self.num_classes is not None:
                self.masks.read(mask, self.num_classes, encoded.name)
        except NoClass as error:
            return error.problem
        except UserError as error:
            return str(error)
        return ""

    def of_boxes(
        self, encoded: EncodedSample, pixels: PixelFormat, *, with_masks: bool = True
    ) -> str:
        """Return what is wrong with the boxes of a sample, with the sample's name; "" for nothing.

        Args:
            encoded: The sample; one without boxes is none with wrong ones.
            pixels: How images are read, for the size of this one.
            with_masks: Whether to decode the masks of the objects.

        Raises:
            ValueError: If the image cannot be read.
        """
        if BOXES not in encoded.members:
            return ""
        size_px = size_in_px(encoded.data, pixels)
        if size_px is None:
            with_masks, size_px = False, (0, 0)
        try:
            return wrong_boxes(encoded, size_px, self.num_classes, with_masks=with_masks)
        except UserError as error:
            return str(error)


ANY_VALUES = MemberCheck(MaskClasses(), None)


def size_in_px(data: bytes, pixels: PixelFormat) -> tuple[int, int] | None:
    """Return height and width of an image; None of an array whose axes may be read in two ways.

    Args:
        data: The contents of the file.
        pixels: Says where the channels of an array are, and whether pictures are turned.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        image = probe_image(data, pixels)
    except AmbiguousAxes:
        return None
    if pixels.exif_rotation and is_transposed(orientation_of(data)):
        return image.width_px, image.height_px
    return image.height_px, image.width_px

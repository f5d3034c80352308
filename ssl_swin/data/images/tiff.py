"""Reading TIFF: which of its pages is the picture, and what its values mean."""

import io
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError
from tifffile import COMPRESSION, PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPage, TiffPageSeries

from ssl_swin.data.images.axes import channels_first
from ssl_swin.data.images.codecs import pil_outline, read_with_pil
from ssl_swin.data.images.orientation import UPRIGHT, known, turned_back
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.images.pixel_values import Outline, Raster, Unsuitable, native
from ssl_swin.data.images.tiff_segments import check_segments

_ALPHA = (1, 2)  # kinds of extra sample that are opacity, premultiplied or not
_PHOTOMETRIC, _ORIENTATION, _INK_SET, _GDAL_NODATA = 262, 274, 332, 42113  # tags
_NOT_CMYK = 2  # of _INK_SET
_GRAY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
_BY_PIL = (PHOTOMETRIC.PALETTE, PHOTOMETRIC.YCBCR, PHOTOMETRIC.SEPARATED, *_GRAY, PHOTOMETRIC.RGB)
_BESIDE = (PHOTOMETRIC.MASK, PHOTOMETRIC.DEPTH_MAP, PHOTOMETRIC.SEMANTIC_MASK)
_REDUCED, _MASK, _DEPTH = 1, 4, 8  # bits of NewSubfileType
_MAKE_IT = "which are not read; make it gray or RGB"

_Part = TiffPageSeries | TiffPage

for name in ("tifffile", "PIL.TiffImagePlugin"):  # what they cannot read, they also raise
    logging.getLogger(name).setLevel(logging.CRITICAL)


class _Picture(NamedTuple):
    """The pages of a file that are its image."""

    parts: Sequence[_Part]  # one; or several of one gray page each, which are channels
    page: TiffPage
    photometric: int

    @property
    def axes(self) -> str:
        axes: str = self.parts[0].axes
        return axes if len(self.parts) == 1 else f"I{axes}"

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.parts[0].shape
        return shape if len(self.parts) == 1 else (len(self.parts), *shape)

    @property
    def num_pages(self) -> int:
        return sum(
            len(part.pages) if isinstance(part, TiffPageSeries) else 1 for part in self.parts
        )

    def pages(self) -> Iterator[Any]:
        """Yield all pages whose values are read, also those that say only where they lie."""
        for part in self.parts:
            pages = part.pages if isinstance(part, TiffPageSeries) else [part]
            yield from (page for page in pages if page is not None)

    @property
    def is_plain(self) -> bool:
        """Whether tifffile's values are the image's, or need only be inverted."""
        bits = self.page.bitspersample
        kinds = (*_GRAY, PHOTOMETRIC.RGB)
        return self.photometric in kinds and isinstance(bits, int) and bits >= 8

    @property
    def has_deep_palette(self) -> bool:
        """Whether there is a palette of more colours than PIL takes."""
        return self.photometric == PHOTOMETRIC.PALETTE and self.page.bitspersample > 8

    @property
    def has_alpha(self) -> bool:
        return bool(self.page.extrasamples) and self.page.extrasamples[-1] in _ALPHA

    @property
    def orientation(self) -> int:
        return known(self.page.tags.valueof(_ORIENTATION))


def read_tiff(data: bytes, pixels: PixelFormat) -> Raster:
    """Read the image of a TIFF: channels interleaved, planar, or one per page.

    It is the page that is not marked as a smaller copy or a mask. Palettes, CMYK, YCbCr and fewer
    than 8 bits go through PIL; so does what tifffile needs imagecodecs for, where 8 bits of gray or
    RGB make PIL equal to it.

    Raises:
        Unsuitable: If the file holds several images, or one that is not read.
    """
    with TiffFile(io.BytesIO(data)) as file:
        picture = _picture(file)
        _check_outline(picture, data, pixels)
        if not (picture.is_plain or picture.has_deep_palette):
            return _read_with_pil(picture, data, pixels)
        for page in picture.pages():
            check_segments(page, data)
        try:
            values = np.stack([part.asarray() for part in picture.parts])
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            if _is_the_same_by_pil(picture):
                return _read_with_pil(picture, data, pixels)
            raise Unsuitable(
                f"is compressed by {COMPRESSION(picture.page.compression).name}, which needs one "
                "more package: pip install imagecodecs"
            ) from error
        values = native(values.reshape(picture.shape))
        if picture.has_deep_palette:
            return Raster(_coloured(values, picture.page))
        values = _channel_axis_first(values, picture.axes, pixels)
        if picture.photometric == PHOTOMETRIC.MINISWHITE:
            values = _inverted(values, picture.page)
        return Raster(values, has_alpha=picture.has_alpha)


def tiff_outline(data: bytes, pixels: PixelFormat) -> Outline:
    """Read (C, H, W) and the type of a TIFF's image from its headers.

    Raises:
        Unsuitable: If it is larger than allowed, or cannot be read as an image.
    """
    with TiffFile(io.BytesIO(data)) as file:
        return _check_outline(_picture(file), data, pixels)


def tiff_orientation(data: bytes) -> int:
    """Return the orientation of a TIFF's image, 1 where none is given."""
    with TiffFile(io.BytesIO(data)) as file:
        return _picture(file).orientation


def gdal_nodata(data: bytes) -> str:
    """Return the value that marks pixels without data by GDAL's tag; empty where none is named."""
    with TiffFile(io.BytesIO(data)) as file:
        value = _picture(file).page.tags.valueof(_GDAL_NODATA)
    return str(value).strip("\0 ") if value is not None else ""


def _picture(file: TiffFile) -> _Picture:
    """Find the image among the pages.

    Raises:
        Unsuitable: If several pages may be it, or its values are not read as colours.
    """
    found = [part for part in _parts(file) if not _is_beside(part)]
    whole = [part for part in found if not part.keyframe.subfiletype & _REDUCED]
    # Unmarked pages inside others (SubIFD) are the picture only where no page outside is.
    whole = [part for part in whole if len(part.keyframe.treeindex) == 1] or whole
    if not whole:  # all are marked as smaller copies
        whole = sorted(found, key=lambda part: math.prod(part.shape))[-1:]
    if not whole:
        raise Unsuitable("holds no picture, only masks")
    if len(whole) > 1 and not _are_bands(whole):
        sizes = ", ".join(" x ".join(map(str, part.shape)) for part in whole[:4])
        raise Unsuitable(
            f"holds {len(whole)} pictures ({sizes}{', ...' * (len(whole) > 4)}), of which none is "
            "marked as a smaller copy; it takes one picture a file"
        )
    page = whole[0].keyframe
    picture = _Picture(whole, page, _photometric(page))
    _check_kind(picture)
    return picture


def _parts(file: TiffFile) -> Iterator[_Part]:
    """Yield what tifffile groups as images; page by page where only some are smaller copies."""
    for series in file.series:
        marks = {page.subfiletype for page in series.pages if isinstance(page, TiffPage)}
        if len(marks) > 1:
            yield from (page for page in series.pages if isinstance(page, TiffPage))
        else:
            yield series


def _is_beside(part: _Part) -> bool:
    page = part.keyframe
    return bool(page.subfiletype & (_MASK | _DEPTH)) or page.photometric in _BESIDE


def _are_bands(parts: Sequence[_Part]) -> bool:
    """Return whether these are gray pages of one size and type: the channels of one image."""
    kinds = {(part.axes, part.shape, part.dtype, part.keyframe.photometric) for part in parts}
    return len(kinds) == 1 and parts[0].axes == "YX" and _photometric(parts[0].keyframe) in _GRAY


def _photometric(page: TiffPage) -> int:
    """Return what the values mean; where a file does not say, gray or RGB, as GDAL does."""
    if _PHOTOMETRIC in page.tags:
        return int(page.photometric)
    return int(PHOTOMETRIC.RGB if page.samplesperpixel >= 3 else PHOTOMETRIC.MINISBLACK)


def _check_kind(picture: _Picture) -> None:
    page, photometric = picture.page, picture.photometric
    if photometric not in _BY_PIL:
        raise Unsuitable(f"holds values of the kind {_name(photometric)}, {_MAKE_IT}")
    if photometric == PHOTOMETRIC.SEPARATED and page.tags.valueof(_INK_SET) == _NOT_CMYK:
        raise Unsuitable(f"holds amounts of inks that are not CMYK, {_MAKE_IT}")
    if page.planarconfig == PLANARCONFIG.SEPARATE and not picture.is_plain and not _is_cmyk_8(page):
        raise Unsuitable(f"holds {_name(photometric)} in planes, {_MAKE_IT}")
    kind = np.dtype(picture.parts[0].dtype).kind
    if picture.is_plain and photometric == PHOTOMETRIC.MINISWHITE and kind != "u":
        raise Unsuitable(
            f"says that white is zero (MINISWHITE) in {picture.parts[0].dtype} values, whose "
            "black nobody knows; make it MINISBLACK"
        )
    if not picture.is_plain and picture.num_pages > 1:
        raise Unsuitable(
            f"holds {picture.num_pages} pages of {_name(photometric)}, {page.bitspersample} bits; "
            "it takes one picture a file"
        )


def _is_cmyk_8(page: TiffPage) -> bool:
    return page.photometric == PHOTOMETRIC.SEPARATED and page.bitspersample == 8


def _name(photometric: int) -> str:
    try:
        return PHOTOMETRIC(photometric).name
    except ValueError:
        return f"{photometric} (PhotometricInterpretation)"


def _check_outline(picture: _Picture, data: bytes, pixels: PixelFormat) -> Outline:
    outline = _outline(picture, data, pixels)
    num_bytes = math.prod(outline.shape) * np.dtype(outline.dtype).itemsize
    pixels.check_size(outline.shape, num_bytes)
    return outline


def _outline(picture: _Picture, data: bytes, pixels: PixelFormat) -> Outline:
    page = picture.page
    if picture.has_deep_palette:
        return Outline((3, page.imagelength, page.imagewidth), "uint8")
    if not picture.is_plain:
        try:
            channels, dtype = _by_pil(picture, data, pixels)
        except UnidentifiedImageError as error:
            raise Unsuitable(
                f"holds {_name(picture.photometric)} of {page.bitspersample} bits in "
                f"{page.samplesperpixel} samples, {_MAKE_IT}"
            ) from error
        return Outline((channels, page.imagelength, page.imagewidth), dtype)
    if picture.parts[0].dtype is None:
        raise Unsuitable(f"holds values of {page.bitspersample} bits, of a type that is not read")
    pixel = native(np.zeros((), picture.parts[0].dtype))
    values = np.broadcast_to(pixel, picture.shape)  # of the shape, without memory
    channels, height_px, width_px = _channel_axis_first(values, picture.axes, pixels).shape
    return Outline((channels, height_px, width_px), values.dtype.name)


def _by_pil(picture: _Picture, data: bytes, pixels: PixelFormat) -> tuple[int, str]:
    (channels, _, _), dtype = pil_outline(data, pixels, _pil_page(picture))
    return channels, dtype


def _read_with_pil(picture: _Picture, data: bytes, pixels: PixelFormat) -> Raster:
    """Read by PIL, and undo that it turns TIFFs, and nothing else, by their orientation."""
    values, has_alpha = read_with_pil(data, pixels, _pil_page(picture))
    if picture.orientation != UPRIGHT:
        values = turned_back(values, picture.orientation)
    return Raster(values, has_alpha)


def _pil_page(picture: _Picture) -> int:
    """Return the number of the page, as PIL counts them."""
    place = picture.page.treeindex
    if len(place) > 1:
        raise Unsuitable(
            f"holds its picture of {_name(picture.photometric)}, {picture.page.bitspersample} bits "
            "inside another page (SubIFD), where it is not read; it takes one picture a file"
        )
    return int(place[0])


def _is_the_same_by_pil(picture: _Picture) -> bool:
    is_gray_or_rgb = picture.page.samplesperpixel - picture.has_alpha in (1, 3)
    return picture.page.bitspersample == 8 and picture.num_pages == 1 and is_gray_or_rgb


def _coloured(places: NDArray[Any], page: TiffPage) -> NDArray[np.uint8]:
    """Return the colours (3, H, W) at places of the palette."""
    colours: NDArray[np.uint16] = np.asarray(page.colormap)
    return (colours[:, places] >> 8).astype(np.uint8)


def _inverted(values: NDArray[Any], page: TiffPage) -> NDArray[Any]:
    """Return values of which white was zero; extra samples, such as opacity, stay."""
    num_extra = len(page.extrasamples)
    num_colours = len(values) - num_extra if num_extra < len(values) else len(values)
    white = values.dtype.type(2**page.bitspersample - 1)
    inverted = values.copy()
    inverted[:num_colours] = white - np.minimum(values[:num_colours], white)
    return inverted


def _channel_axis_first(values: NDArray[Any], axes: str, pixels: PixelFormat) -> NDArray[Any]:
    """Bring a TIFF's axes to (C, H, W).

    S (samples) and C are channels by name, as are pages (I, Z, T), unless only the last axis is as
    long as `channels`. Q is what tifffile calls an axis of arrays that were written without names.
    """
    lengths = list(zip(axes, values.shape, strict=True))
    kept = [(axis, length) for axis, length in lengths if axis in "YX" or length > 1]
    axes, values = "".join(axis for axis, _ in kept), values.reshape([n for _, n in kept])
    if len(axes) > 3 or not {"Y", "X"} <= set(axes):
        raise Unsuitable(f"has the axes {axes}, {values.shape} long; it takes one image a file")
    named = [place for place, axis in enumerate(axes) if axis in "SC"]
    if named:
        return np.moveaxis(values, named[0], 0)
    if len(axes) == 3 and axes[0] not in "QYX" and _are_pages_channels(values.shape, pixels):
        return values
    return channels_first(values, pixels)


def _are_pages_channels(shape: tuple[int, ...], pixels: PixelFormat) -> bool:
    asked = pixels.channels if pixels.bands is None else None
    return asked is None or shape[0] == asked or shape[2] != asked

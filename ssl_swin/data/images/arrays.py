"""Reading files of any number of channels: TIFF, .npy and .npz."""

import io
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile, TiffPage, TiffPageSeries

from ssl_swin.data.images.codecs import probe_with_pil, read_with_pil
from ssl_swin.data.images.pixel_values import Raster, Unsuitable, native

_ALPHA = (1, 2)  # kinds of extra sample that are opacity, premultiplied or not
_NAMED = ("image", "arr_0")  # what an .npz calls the image

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it cannot read, it also raises


def channels_first(values: NDArray[Any], channels: int | None) -> NDArray[Any]:
    """Bring (H, W), (C, H, W) or (H, W, C) to (C, H, W).

    The channel axis is the one that is as long as `channels`: the first if both are. If none is, or
    `channels` is None, it is the shorter one.
    """
    if values.ndim == 2:
        return values[None]
    if values.ndim != 3:
        raise Unsuitable(f"has shape {values.shape}; it takes (H, W), (C, H, W) or (H, W, C)")
    first, _, last = values.shape
    is_last = first != channels and (last == channels or last < first)
    return np.moveaxis(values, -1, 0) if is_last else values


def read_array(data: bytes, channels: int | None) -> Raster:
    """Read an .npy, or an .npz of one array or with one called "image" or "arr_0"."""
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return Raster(channels_first(native(loaded), channels))
    with loaded:
        return Raster(channels_first(native(loaded[_array_name(loaded.files)]), channels))


def _array_name(names: list[str]) -> str:
    named = [name for name in _NAMED if name in names]
    if not named and len(names) != 1:
        raise Unsuitable(f"holds {len(names)} arrays ({', '.join(names)}); call one of them image")
    return (named or names)[0]


def read_tiff(data: bytes, channels: int | None) -> Raster:
    """Read the first image of a TIFF: channels interleaved, planar, or one per page.

    Palettes, CMYK, YCbCr and fewer than 8 bits go through PIL; so does what tifffile needs
    imagecodecs for, where 8 bits of gray or RGB make PIL equal to it.
    """
    with TiffFile(io.BytesIO(data)) as file:
        series, page = _first_image(file)
        if not _is_plain(page):
            return read_with_pil(data)
        try:
            values = series.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            if page.bitspersample == 8 and len(series.pages) == 1 and _is_gray_or_rgb(page):
                return read_with_pil(data)
            raise Unsuitable(
                f"is compressed by {COMPRESSION(page.compression).name}, which needs one more "
                "package: pip install imagecodecs"
            ) from error
        if page.photometric == PHOTOMETRIC.MINISWHITE:
            values = np.invert(values)
        values = _channel_axis_first(native(values), series.axes, channels)
        return Raster(values, has_alpha=_has_alpha(page))


def probe_tiff(data: bytes) -> tuple[tuple[int, int, int], str]:
    """Read (C, H, W) and the type of a TIFF's first image from its headers."""
    with TiffFile(io.BytesIO(data)) as file:
        series, page = _first_image(file)
        if not _is_plain(page):
            return probe_with_pil(data)
        outline = np.broadcast_to(np.zeros((), series.dtype), series.shape)
        channels, height_px, width_px = _channel_axis_first(outline, series.axes, None).shape
        return (channels, height_px, width_px), series.dtype.name


def _first_image(file: TiffFile) -> tuple[TiffPageSeries, TiffPage]:
    series = file.series[0]
    return series, series.keyframe


def _is_plain(page: TiffPage) -> bool:
    kinds = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB)
    return page.photometric in kinds and page.bitspersample >= 8


def _has_alpha(page: TiffPage) -> bool:
    return bool(page.extrasamples) and page.extrasamples[-1] in _ALPHA


def _is_gray_or_rgb(page: TiffPage) -> bool:
    return page.samplesperpixel - _has_alpha(page) in (1, 3)


def _channel_axis_first(values: NDArray[Any], axes: str, channels: int | None) -> NDArray[Any]:
    """Bring a TIFF's axes to (C, H, W).

    S (samples) and C are channels by name; pages may be anything, and are told by their number.
    """
    lengths = list(zip(axes, values.shape, strict=True))
    kept = [(axis, length) for axis, length in lengths if axis in "YX" or length > 1]
    axes, values = "".join(axis for axis, _ in kept), values.reshape([n for _, n in kept])
    if len(axes) > 3 or not {"Y", "X"} <= set(axes):
        raise Unsuitable(f"has the axes {axes}, {values.shape} long; it takes one image a file")
    named = [place for place, axis in enumerate(axes) if axis in "SC"]
    return np.moveaxis(values, named[0], 0) if named else channels_first(values, channels)

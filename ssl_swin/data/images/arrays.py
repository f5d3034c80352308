"""Reading arrays: .npy and .npz."""

import io
import math
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ssl_swin.data.images.axes import channels_first
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.images.pixel_values import Outline, Raster, Unsuitable, native

_NAMED = ("image", "arr_0")  # what an .npz calls the image
_ZIP = b"PK"
_HEADER_START = 12  # bytes of an .npy: magic, version, and the length of what follows
_MOST_HEADER_BYTES = 1 << 16
_MOST_SHOWN = 5  # names of arrays in a message


def read_array(data: bytes, pixels: PixelFormat) -> Raster:
    """Read an .npy, or an .npz of one array or with one called "image" or "arr_0"."""
    array_outline(data, pixels)
    with _without_warnings():
        return Raster(channels_first(native(_loaded(data)), pixels))


def array_outline(data: bytes, pixels: PixelFormat) -> Outline:
    """Read the shape and the type of an array from its header.

    Raises:
        Unsuitable: If it is no image, or larger than allowed.
    """
    with _without_warnings():
        shape, dtype = _header(data)
    if not math.prod(shape):
        raise Unsuitable(f"has shape {shape}, without a pixel")
    values = np.broadcast_to(native(np.zeros((), dtype)), shape)  # of the shape, without memory
    channels, height_px, width_px = channels_first(values, pixels).shape
    pixels.check_size((channels, height_px, width_px), math.prod(shape) * dtype.itemsize)
    return Outline((channels, height_px, width_px), values.dtype.name)


def _loaded(data: bytes) -> NDArray[Any]:
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        values: NDArray[Any] = loaded[_array_name(loaded.files)]
        return values


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep quiet about files of Python 2, which are read all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if not data.startswith(_ZIP):
        shape, dtype, start = _npy_header(io.BytesIO(data))
        if not dtype.hasobject and len(data) - start < math.prod(shape) * dtype.itemsize:
            raise ValueError("the file ends before its array does")
        return shape, dtype
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = [name for name in archive.namelist() if name.endswith(".npy")]
        named = {name.removesuffix(".npy"): name for name in files}
        with archive.open(named[_array_name(list(named))]) as file:
            shape, dtype, _ = _npy_header(file)
            return shape, dtype


def _npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    _check_header(file.read(_HEADER_START))
    file.seek(0)
    version = npy_format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy_format.read_array_header_1_0(file)
    else:
        shape, _, dtype = npy_format.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded: their pickles could run a program")
    return shape, dtype, file.tell()


def _check_header(start: bytes) -> None:
    """Refuse a header of gigabytes, which numpy would read to find it too long."""
    length = struct.unpack_from("<I" if start[6:7] > b"\1" else "<H", start.ljust(_HEADER_START), 8)
    if length[0] > _MOST_HEADER_BYTES:
        raise ValueError(f"its header claims {length[0]} bytes")


def _array_name(names: list[str]) -> str:
    named = [name for name in _NAMED if name in names]
    if not named and len(names) != 1:
        shown = ", ".join(names[:_MOST_SHOWN]) + ", ..." * (len(names) > _MOST_SHOWN)
        raise Unsuitable(f"holds {len(names)} arrays ({shown}); call one of them image")
    return (named or names)[0]

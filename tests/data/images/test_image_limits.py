"""One limit of pixels and bytes for all readers, before anything is decoded."""

import io
import struct
import time
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from ssl_swin.data.images.decode import decode_image, orientation_of, probe_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.images.pixel_values import Unsuitable
from ssl_swin.data.images.tiff_segments import check_segments
from ssl_swin.errors import UserError


def picture(file_format: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (40, 25)).save(file, file_format)
    return file.getvalue()


def array(kind: str) -> bytes:
    file = io.BytesIO()
    values = np.zeros((3, 25, 40), np.uint8)
    if kind == "tif":
        tifffile.imwrite(file, values, photometric="rgb", planarconfig="separate")
    elif kind == "npz":
        np.savez_compressed(file, values)
    else:
        np.save(file, values)
    return file.getvalue()


IMAGES = {
    **{kind: picture(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "AVIF")},
    "16-bit PNG": picture("PNG", "I;16"),
    "PFM": picture("PPM", "F"),
    "palette TIFF": picture("TIFF", "P"),
    "JPEG 2000": picture("JPEG2000"),
    "TGA": picture("TGA"),
    **{kind: array(kind) for kind in ("tif", "npz", "npy")},
}


@pytest.mark.parametrize("kind", IMAGES)
def test_decode_image__limits(kind: str) -> None:
    info = probe_image(IMAGES[kind])
    num_bytes = 1000 * info.channels * np.dtype(info.dtype).itemsize
    just = PixelFormat(max_image_pixels=1000, max_image_bytes=num_bytes)
    assert probe_image(IMAGES[kind], just) == info
    assert decode_image(IMAGES[kind], just, name="x").shape[-2:] == (25, 40)
    for limit, message in (
        (PixelFormat(max_image_pixels=999), "max_image_pixels is 999"),
        (PixelFormat(max_image_bytes=num_bytes - 1), f"max_image_bytes is {num_bytes - 1}"),
    ):
        with pytest.raises(UserError, match=f"the image x is 25 x 40 px .*{message}"):
            decode_image(IMAGES[kind], limit, name="x")
        with pytest.raises(ValueError, match=f"is 25 x 40 px .*{message}"):
            probe_image(IMAGES[kind], limit)


def test_decode_image__the_message() -> None:
    with pytest.raises(UserError) as info:
        decode_image(IMAGES["JPEG"], PixelFormat(3, "uint8", max_image_pixels=10), name="a.jpg")
    assert str(info.value) == (
        "the image a.jpg is 25 x 40 px (height x width); max_image_pixels is 10 (raise it by "
        "data.max_image_pixels=N for a run, --max-image-pixels N for ssl-swin pack, check and "
        "stats; or leave the image out)"
    )


def test_decode_image__pils_own_limit_does_not_show_through() -> None:
    """200 megapixels of two levels, which PIL refuses; its limit stays for everyone else."""
    file = io.BytesIO()
    Image.new("1", (20000, 10000)).save(file, "PNG")
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe_image(file.getvalue()) == (10000, 20000, 1, "uint8")
        assert orientation_of(file.getvalue()) == 1
    assert before == Image.MAX_IMAGE_PIXELS
    with pytest.raises(UserError, match=r"is 10000 x 20000 px .* max_image_pixels is 199999999"):
        decode_image(file.getvalue(), PixelFormat(max_image_pixels=199_999_999), name="x")
    assert before == Image.MAX_IMAGE_PIXELS


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def small_bombs() -> dict[str, bytes]:
    """Files of a few bytes whose headers tell of gigabytes."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (30000, 30000)}
    npy, npz = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(npy, header)
    with zipfile.ZipFile(npz, "w") as archive:
        archive.writestr("image.npy", npy.getvalue())
    signature = b"\x89PNG\r\n\x1a\n"
    size = struct.pack(">II", 60000, 60000)
    begun = chunk(b"IDAT", b"\x78\x9c")
    png = signature + chunk(b"IHDR", size + b"\x08\x02\0\0\0") + begun
    deep_png = signature + chunk(b"IHDR", size + b"\x10\x02\0\0\0") + begun
    jpeg = IMAGES["JPEG"]
    place = jpeg.index(b"\xff\xc0") + 5
    return {
        "npz": npz.getvalue(),
        "npy": npy.getvalue() + b"\0" * 100,
        "png": png,
        "deep png": deep_png,
        "jpeg": jpeg[:place] + struct.pack(">HH", 65000, 65000) + jpeg[place + 4 :],
        "bmp": IMAGES["BMP"][:18] + struct.pack("<ii", 40000, 40000) + IMAGES["BMP"][26:],
        "pfm": b"PF\n40000 40000\n-1.0\n",
        "ppm": b"P6\n40000 40000\n255\n",
    }


@pytest.mark.parametrize("kind", small_bombs())
def test_decode_image__bombs_are_refused_by_their_headers(kind: str) -> None:
    start_s = time.perf_counter()
    with pytest.raises(UserError, match=r"max_image_|the file ends before"):
        decode_image(small_bombs()[kind], PixelFormat(3, "uint8"), name="x")
    assert time.perf_counter() - start_s < 1


NUM_MB = 64


def long_header() -> bytes:
    """An .npz of 64 KB whose array claims a header of 64 MB."""
    npz = io.BytesIO()
    with zipfile.ZipFile(npz, "w", zipfile.ZIP_DEFLATED) as archive:
        header = struct.pack("<I", NUM_MB << 20) + b" " * (NUM_MB << 20)
        archive.writestr("image.npy", b"\x93NUMPY\x02\x00" + header)
    return npz.getvalue()


def memory_of(data: bytes) -> int:
    """The most bytes of Python's own that decoding had in use."""
    tracemalloc.start()
    try:
        with pytest.raises((UserError, ValueError)):
            probe_image(data)
            decode_image(data, PixelFormat(3, "uint8"), name="x")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_decode_image__reads_no_header_of_gigabytes() -> None:
    data = long_header()
    assert len(data) < 100_000
    with pytest.raises(UserError, match=f"its header claims {NUM_MB << 20} bytes"):
        decode_image(data, PixelFormat(3, "uint8"), name="x")
    assert memory_of(data) < 4 << 20


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
@pytest.mark.parametrize("is_bounded", [True, False], ids=["imagecodecs", "without"])
def test_check_segments__a_strip_that_unpacks_to_more_than_its_place(
    compression: str, is_bounded: bool
) -> None:
    """The header is rewritten to tell of an image half as high as the one that is stored."""
    written = io.BytesIO()
    values = np.zeros((64, 64), np.uint8)
    tifffile.imwrite(written, values, compression=compression, rowsperstrip=64)
    data = bytearray(written.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        check_segments(file.pages[0], bytes(data), is_bounded=is_bounded)
        for name in ("RowsPerStrip", "ImageLength"):
            place = file.pages[0].tags[name].valueoffset
            data[place : place + 2] = struct.pack("<H", 32)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if is_bounded:
            check_segments(file.pages[0], bytes(data), is_bounded=True)
        else:
            with pytest.raises(Unsuitable, match="unpacks to more than the 2048 that"):
                check_segments(file.pages[0], bytes(data), is_bounded=False)

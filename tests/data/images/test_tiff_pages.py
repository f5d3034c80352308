"""Which page of a TIFF is the picture, and which kinds of values are read."""

import io
import re
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from ssl_swin.data.images.decode import decode_image, probe_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError

DRAW = np.random.default_rng(0)
RGB = DRAW.integers(0, 256, (20, 30, 3), dtype=np.uint8)
SMALL = RGB[:5, :6]
GRAY = RGB[..., 0]
AS_RGB: dict[str, Any] = {"photometric": "rgb"}
AS_GRAY: dict[str, Any] = {"photometric": "minisblack"}
REDUCED: dict[str, Any] = {"subfiletype": 1}
RAMP = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
AS_PALETTE: dict[str, Any] = {"photometric": "palette", "colormap": RAMP}


def tiff(*pages: tuple[NDArray[Any], dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for values, options in pages:
            writer.write(values, **options)
    return file.getvalue()


def old_style(kind: int) -> dict[str, Any]:
    return AS_RGB | {"extratags": [(255, "H", 1, kind, True)]}


PICTURES = {
    "thumbnail first": tiff((SMALL, AS_RGB | REDUCED), (RGB, AS_RGB)),
    "thumbnail last": tiff((RGB, AS_RGB), (SMALL, AS_RGB | REDUCED)),
    "thumbnails around": tiff((SMALL, AS_RGB | REDUCED), (RGB, AS_RGB), (SMALL, AS_RGB | REDUCED)),
    "gray thumbnail": tiff((GRAY[:5, :6], AS_GRAY | REDUCED), (RGB, AS_RGB)),
    "larger preview": tiff((np.zeros((50, 60, 3), np.uint8), AS_RGB | REDUCED), (RGB, AS_RGB)),
    "preview of its size": tiff(
        (RGB // 2, AS_RGB | REDUCED | {"metadata": None}), (RGB, AS_RGB | {"metadata": None})
    ),
    "in a sub-page": tiff((SMALL, AS_RGB | REDUCED | {"subifds": 1}), (RGB, AS_RGB)),
    "pyramid in sub-pages": tiff((RGB, AS_RGB | {"subifds": 1}), (SMALL, AS_RGB | REDUCED)),
    "mask beside it": tiff((RGB, AS_RGB), (GRAY > 9, {"photometric": "mask", "subfiletype": 4})),
    "mask before it": tiff((GRAY > 9, {"photometric": "mask", "subfiletype": 4}), (RGB, AS_RGB)),
    "old tag": tiff((SMALL, old_style(2)), (RGB, old_style(1))),
    "alone and marked": tiff((RGB, AS_RGB | REDUCED)),
    "largest of the marked": tiff((SMALL, AS_RGB | REDUCED), (RGB, AS_RGB | REDUCED)),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_decode_image__the_page_that_is_the_picture(kind: str) -> None:
    assert probe_image(PICTURES[kind]) == (20, 30, 3, "uint8")
    pixels = decode_image(PICTURES[kind], PixelFormat(3, "uint8"), name="x")
    assert (pixels.numpy() == RGB.transpose(2, 0, 1)).all()


def test_decode_image__a_palette_behind_a_thumbnail() -> None:
    data = tiff((SMALL, AS_RGB | REDUCED), (GRAY, AS_PALETTE))
    assert probe_image(data) == (20, 30, 3, "uint8")
    assert (decode_image(data, PixelFormat(3, "uint8"), name="x").numpy() == GRAY).all()


@pytest.mark.parametrize("metadata", [None, {}])
def test_decode_image__gray_pages_are_channels(metadata: dict[str, Any] | None) -> None:
    pages = [RGB[..., channel] for channel in range(3)] + [GRAY // 2]
    data = tiff(*((page, AS_GRAY | {"metadata": metadata}) for page in pages))
    assert probe_image(data) == (20, 30, 4, "uint8")
    assert (decode_image(data, PixelFormat(4, "uint8"), name="x").numpy() == pages).all()
    chosen = decode_image(data, PixelFormat(1, "uint8", bands=(3,)), name="x")
    assert (chosen[0].numpy() == GRAY // 2).all()


SEPARATED: dict[str, Any] = {"photometric": "separated"}
FOUR = DRAW.integers(0, 256, (20, 30, 4), dtype=np.uint8)
NOT_CMYK = SEPARATED | {"extratags": [(332, "H", 1, 2, True)]}
REFUSED = {
    "holds 2 pictures (20 x 30 x 3, 5 x 6 x 3), of which none is marked as a smaller copy; it "
    "takes one picture a file": tiff((RGB, AS_RGB), (SMALL, AS_RGB)),
    "holds 2 pictures (20 x 30, 20 x 30), of which": tiff(
        (GRAY, AS_GRAY), (GRAY.astype("u2"), AS_GRAY)
    ),
    "holds 3 pages of MINISBLACK, 1 bits; it takes": tiff(*[(GRAY > 9, AS_GRAY)] * 3),
    "holds 2 pictures (20 x 30, 20 x 30), of which none": tiff(*[(GRAY, AS_PALETTE)] * 2),
    "has the axes IYXS, (2, 20, 30, 3) long": tiff(*[(RGB, AS_RGB | {"metadata": None})] * 2),
    "holds no picture, only masks": tiff((GRAY > 9, {"photometric": "mask"})),
    "holds its picture of PALETTE, 8 bits inside another page (SubIFD)": tiff(
        (SMALL, AS_RGB | REDUCED | {"subifds": 1}), (GRAY, AS_PALETTE)
    ),
    "says that white is zero (MINISWHITE) in int16 values, whose black nobody knows": tiff(
        (GRAY.astype("i2"), {"photometric": "miniswhite"})
    ),
    "says that white is zero (MINISWHITE) in float32 values, whose black nobody knows": tiff(
        (GRAY.astype("f4"), {"photometric": "miniswhite"})
    ),
    "holds values of the kind CIELAB, which are not read; make it gray or RGB": tiff(
        (RGB, {"photometric": "cielab"})
    ),
    "holds values of the kind CFA, which are not read": tiff((GRAY, {"photometric": "cfa"})),
    "holds values of the kind LOGLUV, which": tiff((RGB, {"photometric": "logluv"})),
    "holds amounts of inks that are not CMYK": tiff((FOUR, NOT_CMYK)),
    "holds SEPARATED of 32 bits in 4 samples, which are not read": tiff(
        (FOUR.astype("f4"), SEPARATED)
    ),
    "holds YCBCR of 16 bits in 3 samples, which": tiff(
        (RGB.astype("u2"), {"photometric": "ycbcr"})
    ),
    "holds YCBCR in planes, which are not read": tiff(
        (RGB.transpose(2, 0, 1).copy(), {"photometric": "ycbcr", "planarconfig": "separate"})
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_decode_image__refuses_what_it_would_read_wrongly(message: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"the image a.tif {message}")) as info:
        decode_image(REFUSED[message], PixelFormat(3, "float32"), name="a.tif")
    assert "\n" not in str(info.value)
    with pytest.raises(ValueError, match=re.escape(message)):  # so that packing leaves it out
        probe_image(REFUSED[message])


def test_decode_image__white_is_zero_in_colours_but_not_in_alpha() -> None:
    both = np.stack([GRAY, GRAY.T.reshape(20, 30)], axis=-1)
    options = {"planarconfig": "contig", "extrasamples": ["unassalpha"]}
    data = tiff((both, {"photometric": "miniswhite", **options}))
    pixels = decode_image(data, PixelFormat(2, "uint8"), name="x").numpy()
    assert (pixels[0] == 255 - both[..., 0]).all() and (pixels[1] == both[..., 1]).all()


def test_decode_image__palette_of_16_bits() -> None:
    colours = DRAW.integers(0, 65536, (3, 65536)).astype(np.uint16)
    places = DRAW.integers(0, 65536, (20, 30)).astype(np.uint16)
    data = tiff((places, {"photometric": "palette", "colormap": colours}))
    assert probe_image(data) == (20, 30, 3, "uint8")
    pixels = decode_image(data, PixelFormat(3, "uint8"), name="x")
    assert (pixels.numpy() == colours[:, places] >> 8).all()


def test_decode_image__cmyk_in_planes() -> None:
    planes = {"photometric": "separated", "planarconfig": "separate"}
    data = tiff((FOUR.transpose(2, 0, 1).copy(), planes))
    expected = np.asarray(Image.fromarray(FOUR, "CMYK").convert("RGB"))
    pixels = decode_image(data, PixelFormat(3, "uint8"), name="x")
    assert (pixels.numpy() == expected.transpose(2, 0, 1)).all()


def test_decode_image__without_a_photometric_tag_gray_is_not_inverted() -> None:
    data = tiff((GRAY, AS_GRAY))
    tag = b"\x06\x01\x03\x00"  # 262, of a short
    assert data.count(tag) == 1
    without = data.replace(tag, b"\x0a\x01\x03\x00")  # 266, FillOrder, whose 1 is the default
    assert (decode_image(without, PixelFormat(1, "uint8"), name="x")[0].numpy() == GRAY).all()

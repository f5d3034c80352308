import io
import re
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_swin.data.decode import decode_image
from ssl_swin.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
PHOTO = Image.fromarray(NOISE).resize((67, 45), Image.Resampling.BICUBIC)  # odd sides, smooth


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def by_pil(data: bytes, mode: str) -> torch.Tensor:
    """The reference: uint8 (C, H, W)."""
    array = np.array(Image.open(io.BytesIO(data)).convert(mode))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1))


JPEGS = {
    "baseline": encoded(PHOTO, "JPEG"),
    "full chroma": encoded(PHOTO, "JPEG", subsampling=0, quality=97),
    "progressive": encoded(PHOTO, "JPEG", progressive=True),
    "gray": encoded(PHOTO.convert("L"), "JPEG"),
    "cmyk": encoded(PHOTO.convert("CMYK"), "JPEG"),
}
OTHERS = {
    "png": encoded(PHOTO, "PNG"),
    "png with alpha": encoded(PHOTO.convert("RGBA"), "PNG"),
    "png with palette": encoded(PHOTO.quantize(16), "PNG"),
    "png gray": encoded(PHOTO.convert("L"), "PNG"),
    "png of two levels": encoded(PHOTO.convert("1"), "PNG"),
    "gif": encoded(PHOTO, "GIF"),
    "bmp": encoded(PHOTO, "BMP"),
    "webp": encoded(PHOTO, "WEBP", lossless=True),
    "tiff": encoded(PHOTO, "TIFF"),
}


@pytest.mark.parametrize("kind", [*JPEGS, *OTHERS])
def test_decode_image__rgb_equals_pil(kind):
    data = {**JPEGS, **OTHERS}[kind]
    pixels = decode_image(data, 3, kind)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 45, 67))
    assert pixels.equal(by_pil(data, "RGB"))
    assert pixels.unique().numel() > 1


@pytest.mark.parametrize("kind", ["gray", "cmyk", *OTHERS])
def test_decode_image__gray_equals_pil(kind):
    data = {**JPEGS, **OTHERS}[kind]
    pixels = decode_image(data, 1, kind)
    assert pixels.shape == (1, 45, 67)
    assert pixels.equal(by_pil(data, "L"))


@pytest.mark.parametrize("kind", ["baseline", "full chroma", "progressive"])
def test_decode_image__gray_of_a_colour_jpeg_is_its_luma(kind):
    image = Image.open(io.BytesIO(JPEGS[kind]))
    image.draft("L", image.size)  # asks PIL for the stored luma
    assert image.mode == "L"
    assert decode_image(JPEGS[kind], 1, kind)[0].equal(torch.from_numpy(np.array(image)))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_decode_image__keeps_the_upper_8_of_16_bits(file_format, in_chans):
    levels = np.array([[0, 255, 256, 511], [4096, 32768, 65279, 65535]], dtype=np.uint16)
    pixels = decode_image(encoded(Image.fromarray(levels), file_format), in_chans, "x")
    assert pixels.tolist() == [[[0, 0, 1, 1], [16, 128, 254, 255]]] * in_chans


def test_decode_image__refuses_values_without_a_range():
    data = encoded(Image.new("F", (2, 2), 3.5), "TIFF")
    with pytest.raises(UserError, match=r"image a\.tif: it holds 32-bit values"):
        decode_image(data, 1, "a.tif")


DAMAGED = {
    "empty": b"",
    "html": b"<html>404</html>",
    "jpeg marker only": JPEGS["baseline"][:2],
    "jpeg half": JPEGS["baseline"][: len(JPEGS["baseline"]) // 2],
    "jpeg without its end": JPEGS["baseline"][:-40],
    "progressive half": JPEGS["progressive"][: len(JPEGS["progressive"]) // 2],
    "jpeg garbage": b"\xff\xd8" + bytes(range(256)),
    "png signature": OTHERS["png"][:8],
    "png half": OTHERS["png"][: len(OTHERS["png"]) // 2],
    "gif half": OTHERS["gif"][: len(OTHERS["gif"]) // 2],
    "bmp of 10^9 px": OTHERS["bmp"][:18] + struct.pack("<ii", 31623, 31623) + OTHERS["bmp"][26:],
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("in_chans", [1, 3])
def test_decode_image__damaged(kind, in_chans):
    with pytest.raises(UserError, match=r"cannot decode the image s\.tar:17: .*pack") as info:
        decode_image(DAMAGED[kind], in_chans, "s.tar:17")
    assert not re.search(r"0x[0-9a-f]{6}|\.cpp|\n", str(info.value))


@pytest.mark.parametrize("in_chans", [0, 2, 5])
def test_decode_image__other_channels(in_chans):
    with pytest.raises(UserError, match=f"1 or 3 channels; data.in_chans is {in_chans}"):
        decode_image(JPEGS["baseline"], in_chans, "x")

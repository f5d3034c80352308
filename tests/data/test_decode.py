import io
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from ssl_swin.data.images.decode import decode_image, probe_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
PHOTO = Image.fromarray(NOISE).resize((67, 45), Image.Resampling.BICUBIC)  # odd sides, smooth
SEE_THROUGH = Image.merge("RGBA", (*PHOTO.split(), PHOTO.convert("L")))


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def by_pil(data: bytes, mode: str) -> torch.Tensor:
    """The reference: uint8 (C, H, W)."""
    array = np.array(Image.open(io.BytesIO(data)).convert(mode))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1))


def decode(data: bytes, channels: int = 3, dtype: str = "uint8") -> torch.Tensor:
    return decode_image(data, PixelFormat(channels, dtype), name="s.tar:17")


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
    "tiff with alpha": encoded(PHOTO.convert("RGBA"), "TIFF"),
    "tiff with palette": encoded(PHOTO.quantize(16), "TIFF"),
    "tiff of two levels": encoded(PHOTO.convert("1"), "TIFF", compression="group4"),
    "tiff gray": encoded(PHOTO.convert("L"), "TIFF", compression="tiff_lzw"),
    "tiff white is zero": encoded(PHOTO.convert("L"), "TIFF", tiffinfo={262: 0}),
    "tiff ycbcr": encoded(PHOTO, "TIFF", compression="jpeg"),
    "ppm": encoded(PHOTO, "PPM"),
    "webp with alpha": encoded(SEE_THROUGH, "WEBP", lossless=True, exact=True),
    "gray with alpha": encoded(PHOTO.convert("LA"), "PNG"),
}


@pytest.mark.parametrize("kind", [*JPEGS, *OTHERS])
def test_decode_image__rgb_equals_pil(kind):
    data = {**JPEGS, **OTHERS}[kind]
    pixels = decode(data, 3)
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 45, 67))
    assert pixels.equal(by_pil(data, "RGB"))
    assert pixels.unique().numel() > 1


@pytest.mark.parametrize("kind", ["gray", "cmyk", *OTHERS])
def test_decode_image__gray_equals_pil(kind):
    data = {**JPEGS, **OTHERS}[kind]
    pixels = decode(data, 1)
    assert pixels.shape == (1, 45, 67)
    assert pixels.equal(by_pil(data, "L"))


@pytest.mark.parametrize("kind", ["baseline", "full chroma", "progressive"])
def test_decode_image__gray_of_a_colour_jpeg_is_its_luma(kind):
    image = Image.open(io.BytesIO(JPEGS[kind]))
    image.draft("L", image.size)  # asks PIL for the stored luma
    assert image.mode == "L"
    assert decode(JPEGS[kind], 1)[0].equal(torch.from_numpy(np.array(image)))


def test_decode_image__jpeg_keeps_the_strides_that_resize_fast():
    assert decode(JPEGS["baseline"]).stride() == (1, 3 * 67, 3)
    one_of_two = decode(JPEGS["baseline"])[None]
    assert one_of_two.is_contiguous(memory_format=torch.channels_last)


def test_decode_image__jpeg_that_torchvision_refuses(monkeypatch):
    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("not this one")

    monkeypatch.setattr("ssl_swin.data.images.codecs.decode_jpeg", refuse)
    for channels, mode in ((3, "RGB"), (1, "L")):
        expected = by_pil(JPEGS["cmyk"], "RGB").numpy().transpose(1, 2, 0)
        shown = Image.fromarray(expected).convert(mode)
        assert decode(JPEGS["cmyk"], channels).equal(TF.pil_to_tensor(shown))


# Channels


def test_decode_image__alpha_is_kept_where_asked_for_and_else_dropped():
    image = SEE_THROUGH
    for file_format, options in (
        ("PNG", {}),
        ("WEBP", {"lossless": True, "exact": True}),
        ("TIFF", {}),
    ):
        data = encoded(image, file_format, **options)
        assert decode(data, 4).equal(TF.pil_to_tensor(image))
        assert decode(data, 3).equal(TF.pil_to_tensor(PHOTO))
        assert decode(data, 1).equal(TF.pil_to_tensor(PHOTO.convert("L")))
    data = encoded(image.convert("LA"), "PNG")
    assert decode(data, 2).equal(TF.pil_to_tensor(image.convert("LA")))
    assert decode(data, 1).equal(TF.pil_to_tensor(image.convert("L")))


@pytest.mark.parametrize("kind", ["gif", "tiff cmyk"])
def test_decode_image__first_frame_and_cmyk(kind):
    data = {
        "gif": encoded(PHOTO, "GIF", save_all=True, append_images=[PHOTO.rotate(180)]),
        "tiff cmyk": encoded(PHOTO.convert("CMYK"), "TIFF"),
    }[kind]
    assert decode(data).equal(by_pil(data, "RGB"))


@pytest.mark.parametrize(
    ("kind", "stored", "channels"),
    [("baseline", 3, 4), ("gray", 1, 2), ("png", 3, 4), ("png with alpha", 4, 2), ("tiff", 3, 5)],
)
def test_decode_image__other_number_of_channels(kind, stored, channels):
    message = rf"the image s\.tar:17 has {stored} channels?; data\.channels is {channels} \(set"
    with pytest.raises(UserError, match=message):
        decode({**JPEGS, **OTHERS}[kind], channels)


# 16 bits

LEVELS = np.array([[0, 255, 256, 511], [4096, 32768, 65279, 65535]], dtype=np.uint16)
NOISE_16 = np.random.default_rng(1).integers(0, 65536, (12, 17, 5), dtype=np.uint16)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_image__16_bits_of_gray(file_format, channels):
    data = encoded(Image.fromarray(LEVELS), file_format)
    upper = [[[0, 0, 1, 1], [16, 128, 254, 255]]] * channels
    assert decode(data, channels).tolist() == upper
    whole = decode(data, channels, "uint16")
    assert whole.dtype == torch.uint16 and whole.tolist() == [LEVELS.tolist()] * channels
    assert torch.equal(decode(data, channels, "float32"), whole.float() / 65535)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_decode_image__16_bit_png_in_colour(channels):
    pixels = torch.from_numpy(NOISE_16[..., :channels].transpose(2, 0, 1).copy())
    data = png_16(pixels)
    assert decode(data, channels, "uint16").equal(pixels)
    assert probe_image(data) == (12, 17, channels, "uint16")
    if channels == 4:
        assert decode(data, 3, "uint16").equal(pixels[:3])
    if channels == 3:
        luma = (pixels.double() * torch.tensor([0.299, 0.587, 0.114]).double()[:, None, None]).sum(
            0
        )
        assert (decode(data, 1, "uint16")[0].double() - luma).abs().max() < 1.0
    with pytest.raises(UserError, match=r"cannot decode the image s\.tar:17: .*pack"):
        decode(data[: len(data) // 2], channels, "uint16")


def png_16(pixels: torch.Tensor) -> bytes:
    """Writes a PNG by hand, as neither PIL nor torchvision writes 16 bits in colour."""
    channels, height, width = pixels.shape
    rows = pixels.permute(1, 2, 0).numpy().astype(">u2").reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def test_decode_image__8_bits_as_16_and_float():
    eight = decode(OTHERS["png"]).int()
    assert decode(OTHERS["png"], 3, "uint16").int().equal(eight * 257)
    assert decode(JPEGS["gray"], 3, "float32").equal(decode(JPEGS["gray"]).float() / 255)


# TIFF


def tiff(levels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, levels, **options)
    return file.getvalue()


GRAY = {"photometric": "minisblack"}
FIVE = np.ascontiguousarray(NOISE_16.transpose(2, 0, 1))
TIFFS = {
    "interleaved": tiff(NOISE_16, planarconfig="contig", **GRAY),
    "planar": tiff(FIVE, planarconfig="separate", **GRAY),
    "pages": tiff(FIVE, **GRAY),
    "rows as pages": tiff(NOISE_16, **GRAY),  # what writing (H, W, 5) without a word does
    "big endian": tiff(FIVE, byteorder=">", **GRAY),
    "bigtiff": tiff(FIVE, bigtiff=True, **GRAY),
    "deflate": tiff(NOISE_16, planarconfig="contig", compression="zlib", predictor=True, **GRAY),
    "tiles": tiff(NOISE_16, planarconfig="contig", tile=(16, 16), **GRAY),
    "rgb and two more": tiff(NOISE_16, planarconfig="contig", photometric="rgb"),
    "imagej": tiff(FIVE, imagej=True, metadata={"axes": "CYX"}),
    "ome": tiff(FIVE, ome=True, metadata={"axes": "CYX"}, **GRAY),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_decode_image__five_bands_of_tiff(kind):
    whole = decode(TIFFS[kind], 5, "uint16")
    assert whole.dtype == torch.uint16 and (whole.numpy() == FIVE).all()
    assert (decode(TIFFS[kind], 5, "uint8").numpy() == FIVE >> 8).all()
    if kind != "rows as pages":
        assert probe_image(TIFFS[kind]) == (12, 17, 5, "uint16")


def test_decode_image__tiff_of_floats():
    values = np.random.default_rng(2).normal(size=(5, 12, 17)).astype(np.float32)
    data = tiff(values, planarconfig="separate", **GRAY)
    assert (decode(data, 5, "float32").numpy() == values).all()
    with pytest.raises(
        UserError, match=r"holds float32 .* data\.dtype is uint16 \(set data\.dtype="
    ):
        decode(data, 5, "uint16")


def test_decode_image__tiff_where_white_is_zero():
    data = tiff(NOISE_16[..., 0], photometric="miniswhite")
    assert (decode(data, 1, "uint16")[0].numpy() == 65535 - NOISE_16[..., 0]).all()


def test_decode_image__tiff_of_several_pictures():
    pictures = np.zeros((2, 12, 17, 3), np.uint8)
    with pytest.raises(
        UserError, match=r"the image s\.tar:17 has the axes \wYXS, \(2, 12, 17, 3\)"
    ):
        decode(tiff(pictures, photometric="rgb"))


@pytest.mark.parametrize("kind", ["interleaved", "deflate", "tiles", "pages"])
@pytest.mark.parametrize("part", [0.01, 0.2, 0.5])
def test_decode_image__damaged_tiff(kind, part, capfd):
    data = TIFFS[kind][: int(len(TIFFS[kind]) * part)]
    with pytest.raises(UserError, match=r"cannot decode the image s\.tar:17: .*pack"):
        decode(data, 5, "uint16")
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_decode_image__tiff_without_imagecodecs(tmp_path):
    """Where PIL reads the same it does; else the message names what is missing."""
    names = ("lzw.tif", "five.tif", "deflate.tif")
    (tmp_path / "lzw.tif").write_bytes(encoded(PHOTO, "TIFF", compression="tiff_lzw"))
    five = tiff(NOISE_16 // 256, planarconfig="contig", compression="lzw", **GRAY)
    (tmp_path / "five.tif").write_bytes(five)
    (tmp_path / "deflate.tif").write_bytes(TIFFS["deflate"])
    script = f"""
import sys
sys.modules["imagecodecs"] = None
from ssl_swin.data.images.decode import decode_image
from ssl_swin.data.images.pixel_format import PixelFormat
for name, channels in zip({names}, (3, 5, 5)):
    try:
        data = open(name, "rb").read()
        pixels = decode_image(data, PixelFormat(channels, "uint16"), name=name)
        print(pixels.long().sum().item())
    except Exception as error:
        print(type(error).__name__, error)
"""
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    lzw, missing, deflate = printed.stdout.splitlines()
    assert int(lzw) == int(np.asarray(PHOTO).sum()) * 257
    assert missing.startswith("UserError the image five.tif is compressed by LZW, which needs one")
    assert missing.endswith("pip install imagecodecs")
    assert int(deflate) == int(FIVE.sum())


# Arrays


def npy(levels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    np.save(file, levels, **options)
    return file.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        npy(FIVE),
        npy(NOISE_16),
        npy(FIVE.astype(">u2")),
        npy(np.asfortranarray(NOISE_16)),
        npz(bands=FIVE),
        npz(image=NOISE_16, mask=FIVE[0]),
        npz(arr_0=FIVE, arr_1=FIVE[0]),
    ],
)
def test_decode_image__arrays(data):
    pixels = decode(data, 5, "uint16")
    assert pixels.dtype == torch.uint16 and (pixels.numpy() == FIVE).all()
    assert probe_image(data) == (12, 17, 5, "uint16")


def test_decode_image__which_axis_holds_the_channels():
    both = np.arange(3 * 4 * 3, dtype=np.uint8).reshape(3, 4, 3)
    assert (decode(npy(both)).numpy() == both).all()  # the first
    last = both[:2]
    assert (decode(npy(last)).numpy() == last.transpose(2, 0, 1)).all()
    flat = both[0]
    assert decode(npy(flat), 1).tolist() == [flat.tolist()]
    assert decode(npy(flat), 3).tolist() == [flat.tolist()] * 3
    with pytest.raises(UserError, match=r"has 5 channels; data\.channels is 4"):
        decode(npy(NOISE_16), 4, "uint16")
    with pytest.raises(UserError, match=r"has shape \(1, 2, 3, 4\); it takes \(H, W\)"):
        decode(npy(np.zeros((1, 2, 3, 4), np.uint8)))


@pytest.mark.parametrize("stored", [np.int16, np.int32, np.uint32, np.int8, np.float16, np.float64])
def test_decode_image__types_that_keep_their_values_as_float32(stored):
    least = 0 if stored is np.uint32 else -100
    values = np.array([[least, 0, 7], [100, 3, 5]]).astype(stored)
    data = npy(values)
    pixels = decode(data, 1, "float32")
    assert pixels.dtype == torch.float32 and pixels[0].tolist() == values.astype(float).tolist()
    for dtype in ("uint8", "uint16"):
        with pytest.raises(UserError, match=rf"holds {values.dtype} values, which {dtype} cannot"):
            decode(data, 1, dtype)


def test_decode_image__truth_values_are_black_and_white():
    assert decode(npy(np.array([[True, False]])), 1).tolist() == [[[255, 0]]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_decode_image__values_that_are_not_finite(value):
    with pytest.raises(UserError, match=r"the image s\.tar:17 holds values that are not finite"):
        decode(npy(np.array([[0.0, value]])), 1, "float32")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(np.array([[{}]]), allow_pickle=True), "Object arrays cannot be loaded"),
        (npz(a=FIVE, b=FIVE), r"holds 2 arrays \(a, b\); call one of them image"),
        (npy(np.ones((5, 2, 2), complex)), "holds complex128 values; an image is made of real"),
        (npy(FIVE)[:-10], "cannot decode the image s.tar:17: .*pack"),
        (npy(FIVE)[:40], "cannot decode the image s.tar:17: .*pack"),
        (npz(a=FIVE)[:-40], "cannot decode the image s.tar:17: .*pack"),
    ],
)
def test_decode_image__arrays_that_are_no_image(data, message):
    with pytest.raises(UserError, match=message):
        decode(data, 5, "float32")


# What cannot be decoded

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
    "bmp of 9 * 10^8 px": OTHERS["bmp"][:18]
    + struct.pack("<ii", 30000, 30000)
    + OTHERS["bmp"][26:],
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_image__damaged(kind, channels):
    with pytest.raises(UserError, match=r"cannot decode the image s\.tar:17: .*pack") as info:
        decode(DAMAGED[kind], channels)
    assert not re.search(r"0x[0-9a-f]{6}|\.cpp|\n", str(info.value))


@pytest.mark.parametrize("dtype", ["int16", "float16", "u1"])
def test_decode_image__other_types(dtype):
    with pytest.raises(UserError, match=f"data.dtype must be one of uint8, .*; it is {dtype}"):
        decode(JPEGS["baseline"], 3, dtype)


# Probing


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        *[
            (kind, 3)
            for kind in ("baseline", "progressive", "cmyk", "png", "png with palette", "gif")
        ],
        *[(kind, 3) for kind in ("bmp", "webp", "ppm", "tiff", "tiff with palette", "tiff ycbcr")],
        *[(kind, 1) for kind in ("gray", "png gray", "png of two levels", "tiff of two levels")],
        *[(kind, 4) for kind in ("png with alpha", "webp with alpha", "tiff with alpha")],
        ("gray with alpha", 2),
    ],
)
def test_probe_image__pictures(kind, channels):
    assert probe_image({**JPEGS, **OTHERS}[kind]) == (45, 67, channels, "uint8")


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_probe_image__16_bits_of_gray(file_format):
    assert probe_image(encoded(Image.fromarray(LEVELS), file_format)) == (2, 4, 1, "uint16")


@pytest.mark.parametrize("kind", ["empty", "html", "jpeg marker only", "png signature"])
def test_probe_image__damaged(kind):
    with pytest.raises(ValueError, match=r"\w") as info:
        probe_image(DAMAGED[kind])
    assert not re.search(r"0x[0-9a-f]{6}|\.cpp|\n", str(info.value))

"""Pixels without data: refused unless there is a value to put in their place."""

import io
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from ssl_swin.data.images.decode import decode_image, decode_marked, named_nodata, probe_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError

NAN, INF = float("nan"), float("inf")


def npy(values: object, dtype: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(values).astype(dtype))
    return file.getvalue()


def decoded(data: bytes, pixels: PixelFormat) -> list[list[list[float]]]:
    return decode_image(data, pixels, name="x").tolist()


@pytest.mark.parametrize(
    ("values", "dtype", "nodata", "fill", "expected"),
    [
        ([[1.5, NAN], [INF, -INF]], "float32", (), 0, [[1.5, 0], [0, 0]]),
        ([[1.5, NAN], [-9999, 2]], "float32", (-9999,), 7.25, [[1.5, 7.25], [7.25, 2]]),
        ([[1.5, 1e300], [3, 4]], "float64", (), 0, [[1.5, 0], [3, 4]]),  # no float32
        ([[-32768, 5], [6, 7]], "int16", (-32768,), 0, [[0, 5], [6, 7]]),
        ([[-1, -2], [3, -1]], "int32", (-1, -2), 9, [[9, 9], [3, 9]]),
        ([[-3.4028234663852886e38, 1.0]], "float32", (-3.4028234663852886e38,), 0, [[0, 1]]),
        ([[0.1, 0.2]], "float32", (0.1,), 0, [[0, np.float32(0.2)]]),  # 0.1 as float32 has it
        ([[1.5, 2.5]], "float16", (2.5,), 0.5, [[1.5, 0.5]]),
    ],
)
def test_decode_image__fills(
    values: object,
    dtype: str,
    nodata: tuple[float, ...],
    fill: float,
    expected: list[list[float]],
) -> None:
    pixels = PixelFormat(1, "float32", nodata=nodata, fill=fill)
    assert decoded(npy(values, dtype), pixels) == [expected]


def test_decode_image__fills_stored_levels() -> None:
    """Marks and fills are values of the file: 255 of 8 bits is 1 as a float."""
    file = io.BytesIO()
    Image.fromarray(np.array([[255, 51], [0, 102]], np.uint8)).save(file, "PNG")
    pixels = PixelFormat(1, "float32", nodata=(255, -9999), fill=0)
    assert decoded(file.getvalue(), pixels) == [[[0, np.float32(0.2)], [0, np.float32(0.4)]]]
    assert decoded(file.getvalue(), PixelFormat(3, "uint16", nodata=(255,), fill=1)) == (
        3 * [[[257, 51 * 257], [0, 102 * 257]]]
    )
    broken = PixelFormat(1, "uint8", nodata=(255,), fill=0.5)
    with pytest.raises(UserError, match=r"holds uint8 values, which data\.fill=0\.5 is not one of"):
        decoded(file.getvalue(), broken)
    untouched = PixelFormat(1, "uint8", nodata=(254,), fill=0.5)
    assert decoded(file.getvalue(), untouched) == [[[255, 51], [0, 102]]]


def test_decode_image__fills_by_channel() -> None:
    values = np.full((2, 3, 3), NAN)
    values[:, 0] = 5
    pixels = PixelFormat(2, "float32", fill=(1, 2), channel_axis="first")
    filled = decode_image(npy(values, "float32"), pixels, name="x")
    assert filled[:, 0].unique().tolist() == [5]
    assert filled[0, 1:].unique().tolist() == [1] and filled[1, 1:].unique().tolist() == [2]
    chosen = PixelFormat(1, "float32", bands=(1,), fill=(4,), channel_axis="first")
    assert decode_image(npy(values, "float32"), chosen, name="x")[0, 1:].unique().tolist() == [4]
    gray = npy([[NAN, 1.0]], "float32")
    with pytest.raises(UserError, match=r"has 1 channel, and data\.fill has 3 values"):
        decode_image(gray, PixelFormat(3, "float32", fill=(1, 2, 3)), name="x")
    repeated = decode_image(gray, PixelFormat(3, "float32", fill=4), name="x")
    assert repeated.tolist() == 3 * [[[4, 1]]]


def test_decode_image__without_a_fill_names_the_setting() -> None:
    with pytest.raises(UserError) as info:
        decode_image(npy([[NAN, 1.0]], "float32"), PixelFormat(1, "float32"), name="a/b.npy")
    assert str(info.value) == (
        "the image a/b.npy holds values that are not finite (NaN or infinite as float32); set "
        "data.fill to what is to stand in their place, such as data.fill=0"
    )


def test_decode_image__a_fill_changes_no_image_that_is_whole() -> None:
    values = np.random.default_rng(0).normal(size=(4, 9, 9)).astype(np.float32)
    data = npy(values, "float32")
    plain = decode_image(data, PixelFormat(4, "float32"), name="x")
    filling = PixelFormat(4, "float32", nodata=(-1,), fill=3)
    assert decode_image(data, filling, name="x").equal(plain)


def test_decode_marked__tells_the_pixels_of_channels_that_are_joined() -> None:
    values = np.zeros((3, 20, 30), np.float32)
    values[1, 0, 2] = NAN
    data = npy(values, "float32")
    whole = decode_marked(data, PixelFormat(3, "float32"), name="x")
    assert whole.missing is not None and np.argwhere(whole.missing).tolist() == [[1, 0, 2]]
    gray = decode_marked(data, PixelFormat(1, "float32"), name="x")
    assert gray.missing is not None and np.argwhere(gray.missing).tolist() == [[0, 0, 2]]
    assert decode_marked(npy([[1.0]], "float32"), PixelFormat(1), name="x").missing is None


def tiff(nodata: str | None) -> bytes:
    tag = [] if nodata is None else [(42113, "s", 0, nodata, True)]
    file = io.BytesIO()
    tifffile.imwrite(file, np.ones((9, 9), np.float32), extratags=tag)
    return file.getvalue()


@pytest.mark.parametrize(
    ("tag", "named"),
    [("-9999", "-9999"), ("0 ", "0"), ("-3.4e+38", "-3.4e+38"), ("nan", ""), ("n/a", "")],
)
def test_named_nodata__is_a_number_in_gdals_tag(tag: str, named: str) -> None:
    assert named_nodata(tiff(tag)) == named


def test_named_nodata__of_others() -> None:
    assert named_nodata(tiff(None)) == named_nodata(b"II*\0") == named_nodata(b"") == ""


def test_probe_image__does_not_look_at_values() -> None:
    assert probe_image(npy([[NAN, INF]], "float32")) == (1, 2, 1, "float32")
    assert re.fullmatch(r"float32", probe_image(tiff("-9999")).dtype)

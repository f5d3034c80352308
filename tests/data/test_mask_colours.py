import io

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_swin.data.decoding import decode_mask, decode_sample
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.mask_classes import IGNORED, MaskClasses
from ssl_swin.data.mask_colours import coded_colours, colour_name
from ssl_swin.data.segment_samples import read_classes
from ssl_swin.errors import UserError

ROAD, CAR, NONE = (128, 64, 128), (0, 0, 142), (0, 0, 0)
MASKS = MaskClasses(class_of_colour={"128-64-128": 0, "0-0-142": 1, "0-0-0": None})
COLOURS = np.array([[ROAD, CAR, NONE], [CAR, CAR, ROAD]], dtype=np.uint8)
CLASSES = [[0, 1, IGNORED], [1, 1, 0]]


def png(array: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(array)
    file = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(file, "PNG", **options)
    return file.getvalue()


def palette_png() -> bytes:
    indices = Image.fromarray(np.array([[2, 0, 1], [0, 0, 2]], dtype=np.uint8))
    indices.putpalette([*CAR, *NONE, *ROAD])
    file = io.BytesIO()
    indices.save(file, "PNG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def sample(mask: bytes, extension: str = "png") -> EncodedSample:
    image = EncodedSample.of_image(png(COLOURS), "png", None, "street/7")
    return image.with_member("mask", Member(mask, extension))


def test_coded_colours__by_hand():
    codes = coded_colours(COLOURS)
    assert codes[0].tolist() == [2**40 + 0x804080, 2**40 + 0x00008E, 2**40]
    assert colour_name(int(codes[0, 1])) == "0-0-142"


@pytest.mark.parametrize(
    "mask",
    [
        png(COLOURS),
        png(COLOURS, "RGBA"),
        palette_png(),
        npy(COLOURS),
    ],
    ids=["rgb", "rgba", "palette", "npy"],
)
def test_read_classes__of_colours(mask):
    read = read_classes(sample(mask), PixelFormat(3, "uint8"), MASKS, num_classes=2)
    assert read.mask is not None and read.mask.dtype == torch.int16
    assert read.mask.tolist() == CLASSES


def test_read_classes__a_mask_that_was_saved_as_gray():
    gray = png(np.array([[0, 7, 0], [7, 7, 0]], dtype=np.uint8))
    masks = MaskClasses(class_of_colour={"0-0-0": 1, "7-7-7": 0})
    read = read_classes(sample(gray), PixelFormat(3, "uint8"), masks, num_classes=2)
    assert read.mask is not None and read.mask.tolist() == [[1, 0, 1], [0, 0, 1]]


def test_colours__unknown_ones_are_named_with_their_place():
    strange = COLOURS.copy()
    strange[1, 0], strange[1, 2] = (1, 2, 3), (1, 2, 3)
    mask = decode_mask(sample(png(strange)))
    with pytest.raises(UserError) as caught:
        MASKS.read(mask, 2, "street/7 (masks/7.png)")
    assert str(caught.value) == (
        "the mask of street/7 (masks/7.png) has the colour 1-2-3 (row 1, column 0), and what is "
        "known is 128-64-128, 0-0-142, 0-0-0: name it in task.masks.class_of_colour, with null as "
        "the class of what is left out"
    )
    smoothed = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    with pytest.raises(UserError, match=r"12-13-14 \(row 1, column 1\) and 1 other, as after smoo"):
        MASKS.read(decode_mask(sample(png(smoothed))), 2, "a")


def test_colours__and_values_are_not_taken_for_each_other():
    with pytest.raises(UserError) as caught:
        MaskClasses().read(decode_mask(sample(png(COLOURS))), 3, "a")
    assert str(caught.value) == (
        "the mask of a is of colours (0-0-0, 0-0-142, 128-64-128): give the class of each by "
        "task.masks.class_of_colour='{0-0-0:0,0-0-142:1}'"
    )
    values = npy(np.array([[2**31 - 1, 0, 1], [1, 1, 1]], dtype=np.int32))
    with pytest.raises(UserError, match="holds values and no colours"):
        MASKS.read(decode_mask(sample(values, "npy"), as_colours=True), 2, "a")
    with pytest.raises(UserError, match="has the value 2147483647"):
        MaskClasses().read(decode_mask(sample(values, "npy")), 2, "a")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (png(np.dstack([COLOURS, COLOURS[..., :1]])), "some of its pixels are transparent"),
        (png(np.full((2, 3), 300, dtype=np.uint16)), "it has 16 bits a channel; colours .* have 8"),
        (npy(COLOURS.astype(np.int32)), r"or of colours of 8 bits \(height, width, 3\)"),
        (b"\xff\xd8\xff", "neither a PNG nor an .npy file; convert it without loss"),
    ],
)
def test_decode_mask__refuses_what_are_no_colours(mask, message):
    with pytest.raises(UserError, match=f"cannot decode the mask of street/7: .*{message}"):
        decode_mask(sample(mask), as_colours=True)


def test_decode_sample__gives_numbers_of_colours_of_any_size_of_mask():
    pixels = PixelFormat(3, "uint8")
    decoded = decode_sample(sample(png(COLOURS)), pixels, members=("mask",))
    assert decoded.mask is not None and decoded.mask.equal(torch.from_numpy(coded_colours(COLOURS)))
    with pytest.raises(UserError, match=r"is 3 x 2 px \(height x width\), its image 2 x 3"):
        decode_sample(sample(png(COLOURS.transpose(1, 0, 2))), pixels, members=("mask",))


def test_mask_classes__of_colours_refuses():
    for name in ("red", "1-2", "1-2-256", "1--3", "#804080"):
        with pytest.raises(UserError, match=f"class_of_colour names '{name}', which"):
            MaskClasses(class_of_colour={name: 0})
    with pytest.raises(UserError, match="class_of_colour names no colour"):
        MaskClasses(class_of_colour={})
    with pytest.raises(UserError, match="class_of_colour names class 1, and there are 1 classes"):
        MASKS.check_classes(1)
    with pytest.raises(UserError, match=r"class_of tells .*, and masks.class_of_colour tells"):
        MaskClasses(class_of={0: 0}, class_of_colour={"0-0-0": 0})

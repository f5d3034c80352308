"""Which axis of an array holds the channels: told where only one can, else asked for."""

import io

import numpy as np
import pytest
import tifffile
import torch

from ssl_swin.data.images.axes import AmbiguousAxes
from ssl_swin.data.images.decode import decode_image, probe_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError


def npy(*shape: int) -> bytes:
    """An array whose values tell where they lie."""
    file = io.BytesIO()
    np.save(file, np.arange(np.prod(shape), dtype=np.uint16).reshape(shape))
    return file.getvalue()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 64, 224), (64, 64, 224)),  # more bands than pixels on a side
        ((224, 64, 64), (64, 64, 224)),
        ((3, 3, 480), (3, 3, 480)),  # two equal axes are height and width, however short
        ((9, 16, 16), (16, 16, 9)),
        ((480, 640, 3), (480, 640, 3)),
        ((3, 480, 640), (480, 640, 3)),
        ((7, 40, 60), (40, 60, 7)),
        ((40, 60, 1), (40, 60, 1)),
        ((12, 32, 40), (32, 40, 12)),
        ((120, 100, 13), (120, 100, 13)),
        ((15, 16, 31), (16, 31, 15)),
        ((5, 2000, 8), (2000, 8, 5)),
        ((30, 50), (30, 50, 1)),
    ],
)
def test_probe_image__where_only_one_axis_can_be_the_channels(
    shape: tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    assert probe_image(npy(*shape)) == (*expected, "uint16")


@pytest.mark.parametrize(
    "shape",
    [
        (64, 100, 224),
        (224, 100, 64),
        (16, 40, 60),  # may be the rows of 60 bands
        (15, 14, 31),
        (16, 2000, 17),
        (64, 100, 64),
        (64, 64, 64),
        (3, 3, 3),
        (1, 480, 1),
    ],
)
def test_probe_image__asks_where_two_axes_can(shape: tuple[int, ...]) -> None:
    with pytest.raises(AmbiguousAxes, match=r"has shape \(") as info:
        probe_image(npy(*shape))
    assert "data.channel_axis=first or last" in str(info.value)
    first, middle, last = shape
    for axis, expected in (("first", (middle, last, first)), ("last", (first, middle, last))):
        assert probe_image(npy(*shape), PixelFormat(channel_axis=axis))[:3] == expected


def test_probe_image__the_message_of_two_readings() -> None:
    with pytest.raises(AmbiguousAxes) as info:
        probe_image(npy(64, 100, 224))
    assert str(info.value) == (
        "has shape (64, 100, 224): 64 channels of 100 x 224 px, or 224 of 64 x 100; set "
        "data.channels, or data.channel_axis=first or last (--channel-axis of ssl-swin pack and "
        "stats)"
    )


@pytest.mark.parametrize("channels", [64, 224])
def test_decode_image__the_number_of_channels_tells(channels: int) -> None:
    values = np.load(io.BytesIO(npy(64, 10, 224)))
    expected = values if channels == 64 else values.transpose(2, 0, 1)
    pixels = decode_image(npy(64, 10, 224), PixelFormat(channels, "uint16"), name="x")
    assert (pixels.numpy() == expected).all()


def test_decode_image__the_axis_tells_where_the_number_fits_both() -> None:
    values = np.load(io.BytesIO(npy(4, 9, 4)))
    for axis, expected in ((None, values), ("first", values), ("last", values.transpose(2, 0, 1))):
        pixels = decode_image(npy(4, 9, 4), PixelFormat(4, "uint16", channel_axis=axis), name="x")
        assert (pixels.numpy() == expected).all()


def test_decode_image__the_number_of_chosen_bands_says_nothing_of_the_axis() -> None:
    values = np.load(io.BytesIO(npy(10, 12, 10)))
    pixels = PixelFormat(10, "uint16", bands=tuple(range(10)))
    with pytest.raises(
        UserError, match=r"10 channels of 12 x 10 px, or of 10 x 12; set data\.channel"
    ):
        decode_image(npy(10, 12, 10), pixels, name="x")
    last = decode_image(
        npy(10, 12, 10), PixelFormat(2, "uint16", bands=(9, 0), channel_axis="last"), name="x"
    )
    assert (last.numpy() == values[..., [9, 0]].transpose(2, 0, 1)).all()


def test_decode_image__tiff_written_row_by_row() -> None:
    """tifffile writes a cube (H, W, C) as H pages, unless it is told that C are samples."""
    cube = np.random.default_rng(0).integers(0, 65535, (64, 64, 100)).astype(np.uint16)
    file = io.BytesIO()
    tifffile.imwrite(file, cube, photometric="minisblack")
    assert probe_image(file.getvalue()) == (64, 64, 100, "uint16")
    file = io.BytesIO()
    tifffile.imwrite(file, cube[:, :50], photometric="minisblack")
    with pytest.raises(AmbiguousAxes, match=r"has shape \(64, 50, 100\): 64 channels"):
        probe_image(file.getvalue())
    pixels = decode_image(file.getvalue(), PixelFormat(100, "uint16"), name="x")
    assert torch.equal(pixels, torch.from_numpy(cube[:, :50].transpose(2, 0, 1).copy()))


def test_decode_image__tiff_whose_pages_are_named() -> None:
    """Pages that another program wrote are channels by their place in the file."""
    pages = np.random.default_rng(0).integers(0, 255, (13, 100, 120)).astype(np.uint8)
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            writer.write(page, photometric="minisblack", metadata=None)
    assert probe_image(file.getvalue()) == (100, 120, 13, "uint8")
    assert (decode_image(file.getvalue(), PixelFormat(), name="x").numpy() == pages).all()

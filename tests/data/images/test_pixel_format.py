import re
from typing import Any

import pytest
from omegaconf import OmegaConf

from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError

DATA = {
    "channels": 2,
    "dtype": "uint16",
    "mean": [0.5, 0.5],
    "bands": [3, 0],
    "nodata": [-9999, 0],
    "fill": [1, 2.5],
    "channel_axis": "last",
    "exif_rotation": True,
    "max_image_pixels": 100,
    "max_image_bytes": 200,
}


def test_from_settings__takes_what_a_configuration_says() -> None:
    expected = PixelFormat(2, "uint16", (3, 0), (-9999, 0), (1, 2.5), "last", True, 100, 200)
    assert PixelFormat.from_settings(DATA) == expected
    assert PixelFormat.from_settings(OmegaConf.create(DATA)) == expected
    assert PixelFormat.from_settings({**DATA, "nodata": -9999, "fill": 0}) == PixelFormat(
        2, "uint16", (3, 0), (-9999,), 0, "last", True, 100, 200
    )


def test_from_settings__nan_need_not_be_named() -> None:
    for nodata in (float("nan"), [float("inf"), float("nan")], [], None):
        assert PixelFormat.from_settings({"nodata": nodata}) == PixelFormat()


def test_from_settings__older_configurations_have_less() -> None:
    assert PixelFormat.from_settings({"channels": 3, "dtype": "uint8"}) == PixelFormat(3, "uint8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int8"}, "data.dtype must be one of uint8, uint16, float32; it is int8"),
        ({"channels": 0}, "data.channels must be at least 1; it is 0"),
        ({"bands": [0]}, "data.bands=[0] chooses 1 bands, and data.channels is 2: set"),
        ({"bands": []}, "data.bands must be a list of whole numbers from 0, such as [0,1,2]"),
        ({"bands": [0, -1]}, "from 0, such as [0,1,2]; it is [0, -1]"),
        ({"bands": [0, 1.5]}, "from 0, such as [0,1,2]; it is [0, 1.5]"),
        ({"bands": [0, True]}, "from 0, such as [0,1,2]; it is [0, True]"),
        ({"bands": 2}, "from 0, such as [0,1,2]; it is 2"),
        ({"bands": "01"}, "from 0, such as [0,1,2]; it is '01'"),
        ({"fill": None}, "data.nodata=[-9999,0] marks pixels without data; give the value to put"),
        ({"nodata": -9999.5, "fill": None}, "data.nodata=-9999.5 marks pixels without data"),
        ({"nodata": "x"}, "data.nodata must be a number, a list of numbers, or null; it is x"),
        ({"fill": float("nan")}, "data.fill must be a finite number, or a list of one for each"),
        ({"fill": [0, float("inf")]}, "data.fill must be a finite number, or a list of one for"),
        ({"fill": []}, "data.fill must be a finite number, or a list of one for each channel"),
        ({"fill": [0]}, "data.fill must be one number or one for each channel: it has 1, and"),
        ({"fill": True}, "data.fill must be a finite number"),
        (
            {"channel_axis": "middle"},
            "data.channel_axis must be first, last or null; it is 'middle'",
        ),
        ({"max_image_pixels": 0}, "data.max_image_pixels must be at least 1; it is 0"),
        ({"max_image_bytes": -1}, "data.max_image_bytes must be at least 1; it is -1"),
    ],
)
def test_from_settings__refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        PixelFormat.from_settings({**DATA, **changes})

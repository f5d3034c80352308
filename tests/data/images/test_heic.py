"""HEIC, where the package that reads it is installed."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_swin.data.file_types import extension_of_content
from ssl_swin.data.images.decode import decode_image, probe_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.pillow_formats import readable_extensions
from ssl_swin.errors import UserError

pillow_heif = pytest.importorskip("pillow_heif")  # optional: not among the test dependencies


def heic() -> tuple[bytes, np.ndarray]:
    """A picture of soft colours, 40 px high and 64 wide."""
    rows, columns = np.mgrid[0:40, 0:64]
    pixels = np.stack([rows * 6, columns * 4, 255 - rows * 3 - columns * 2], axis=-1)
    file = io.BytesIO()
    image = pillow_heif.from_pillow(Image.fromarray(pixels.astype(np.uint8)))
    image.save(file, quality=100, chroma=444)
    return file.getvalue(), pixels


def test_decode_image__heic() -> None:
    data, pixels = heic()
    assert extension_of_content(data) == "heic"
    assert {"heic", "heif", "hif"} <= readable_extensions()
    assert probe_image(data) == (40, 64, 3, "uint8")
    decoded = decode_image(data, PixelFormat(3, "uint8"), name="x.heic")
    expected = torch.from_numpy(pixels).permute(2, 0, 1)
    assert decoded.shape == expected.shape
    assert (decoded - expected).abs().max() <= 6
    assert decode_image(data, PixelFormat(1, "uint8"), name="x.heic").shape == (1, 40, 64)


def test_decode_image__heic_has_the_limit_of_all_readers() -> None:
    data, _ = heic()
    for act in (probe_image, lambda *given: decode_image(*given, name="x")):
        with pytest.raises(
            (UserError, ValueError), match=r"is 40 x 64 px .*max_image_pixels is 9 "
        ):
            act(data, PixelFormat(max_image_pixels=9))


@pytest.mark.parametrize("length", [20, 100, 300])
def test_decode_image__heic_cut_short(length: int) -> None:
    with pytest.raises(UserError, match="cannot decode the image x"):
        decode_image(heic()[0][:length], PixelFormat(3, "uint8"), name="x")

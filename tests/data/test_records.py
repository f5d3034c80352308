import io

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.file_types import IMAGE_EXTENSIONS, extension_of_content

FORMATS = {
    "jpg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "tif": "TIFF",
    "bmp": "BMP",
    "gif": "GIF",
    "ppm": "PPM",
}


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_extension_of_content__pictures(extension, mode):
    file = io.BytesIO()
    Image.new(mode, (10, 10), 13).save(file, FORMATS[extension])  # 13, "\r", and 10, "\n"
    assert extension_of_content(file.getvalue()) == extension
    assert extension in IMAGE_EXTENSIONS


@pytest.mark.parametrize(("extension", "save"), [("npy", np.save), ("npz", np.savez)])
def test_extension_of_content__arrays(extension, save):
    file = io.BytesIO()
    save(file, np.zeros((2, 2)))
    assert extension_of_content(file.getvalue()) == extension
    assert extension in IMAGE_EXTENSIONS


@pytest.mark.parametrize(
    ("beginning", "extension"),
    [
        (b"MM\0*", "tif"),
        (b"II+\0", "tif"),
        (b"GIF87a", "gif"),
        (b"P5\n4 4", "ppm"),
        (b"RIFF\n\n\n\nWEBPVP8 ", "webp"),
        (b"RIFF\n\n\n\nWAVE", ""),
        (b"P5x", ""),
        (b"II*", ""),
        (b"<html>", ""),
        (b" \xff\xd8", ""),
        (b"", ""),
    ],
)
def test_extension_of_content__beginnings(beginning, extension):
    assert extension_of_content(beginning) == extension

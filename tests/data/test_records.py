import io

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.file_types import IMAGE_EXTENSIONS, container_of_content, extension_of_content

FORMATS = {
    "jpg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "tif": "TIFF",
    "bmp": "BMP",
    "gif": "GIF",
    "ppm": "PPM",
    "tga": "TGA",
    "dib": "DIB",
}
COLOUR_FORMATS = {
    "avif": "AVIF",
    "jp2": "JPEG2000",
    "qoi": "QOI",
    "sgi": "SGI",
    "pcx": "PCX",
    "dds": "DDS",
    "jpg": "MPO",
}


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_extension_of_content__pictures(extension, mode):
    file = io.BytesIO()
    Image.new(mode, (10, 10), 13).save(file, FORMATS[extension])  # 13, "\r", and 10, "\n"
    assert extension_of_content(file.getvalue()) == extension
    assert extension in IMAGE_EXTENSIONS


@pytest.mark.parametrize("extension", COLOUR_FORMATS)
def test_extension_of_content__colour_pictures(extension):
    file = io.BytesIO()
    Image.new("RGB", (10, 10), 13).save(file, COLOUR_FORMATS[extension])
    assert extension_of_content(file.getvalue()) == extension
    assert extension in IMAGE_EXTENSIONS


@pytest.mark.parametrize(
    ("beginning", "title"),
    [
        (b"PK\x03\x04...", "ZIP archive"),
        (b"7z\xbc\xaf\x27\x1c", "7z archive"),
        (b"Rar!\x1a\x07\x01", "RAR archive"),
        (b"\x1f\x8b\x08", "gzip file"),
        (b"BZh9", "bzip2 file"),
        (b"\xfd7zXZ\0", "xz file"),
        (b"\x28\xb5\x2f\xfd", "zstd file"),
        (b"BZh", None),
        (b"\xff\xd8", None),
        (b"", None),
    ],
)
def test_container_of_content(beginning, title):
    found = container_of_content(beginning)
    assert (found and found[0]) == title


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
        (b"Pf\n4 4\n-1.0\n", "pfm"),
        (b"\xff\x4f\xff\x51\0", "j2k"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "heic"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "avif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", ""),  # a film
        (b"\xff\x0a\xfa", "jxl"),
        (b"8BPS\0\1", "psd"),
        (b"SIMPLE  =                    T", "fits"),
        (b"#define x_width 16\n", "xbm"),
        (b"\0\0\1\0\1\0\x10\x10\0\0\1\0\x20\0\x68\4\0\0", ""),  # an icon
        (b"II*", ""),
        (b"<html>", ""),
        (b" \xff\xd8", ""),
        (b"", ""),
    ],
)
def test_extension_of_content__beginnings(beginning, extension):
    assert extension_of_content(beginning) == extension

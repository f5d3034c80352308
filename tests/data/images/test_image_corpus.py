"""Every image file that installed packages ship decodes, or is refused in one line."""

import os
import sysconfig
from pathlib import Path

import pytest

from ssl_swin.data.images.decode import (
    decode_image,
    decode_marked,
    named_nodata,
    orientation_of,
    probe_image,
)
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError

pytestmark = pytest.mark.slow
ENDINGS = (
    "jpg jpeg jpe jfif png apng webp bmp dib gif tif tiff ppm pgm pbm pnm pfm npy npz ico icns tga "
    "jp2 j2k avif heic heif psd pcx xbm xpm sgi dds exr hdr fits fit im msp spi svg cur"
).split()
FORMATS = {
    "as stored": PixelFormat(channel_axis="first"),
    "rgb": PixelFormat(3, "uint8"),
    "gray floats": PixelFormat(1, "float32", nodata=(0,), fill=1, exif_rotation=True),
    "bands": PixelFormat(2, "uint16", bands=(0, 0)),
    "small": PixelFormat(3, "uint8", max_image_pixels=1000),
}


def image_files() -> list[Path]:
    """Those of installed packages, or of the folder that SSL_SWIN_IMAGE_CORPUS names."""
    folder = Path(os.environ.get("SSL_SWIN_IMAGE_CORPUS", sysconfig.get_paths()["purelib"]))
    return sorted(p for p in folder.rglob("*.*") if p.suffix[1:].lower() in ENDINGS and p.is_file())


def test_decode_image__every_file_of_installed_packages() -> None:
    files = image_files()
    decoded = refused = 0
    for path in files:
        data = path.read_bytes()
        assert orientation_of(data) in range(1, 9) and isinstance(named_nodata(data), str)
        for pixels in FORMATS.values():
            try:
                image = decode_image(data, pixels, name=path.name)
            except UserError as error:
                refused += 1
                message = str(error)
                assert "\n" not in message and path.name in message and len(message) < 500, message
            else:
                decoded += 1
                marked = decode_marked(data, pixels, name=path.name)
                assert image.shape == marked.values.shape
    print(f"{len(files)} files: decoded {decoded} times, refused {refused} times")
    assert decoded > 0


def test_probe_image__tells_what_decoding_gives() -> None:
    """Whatever decodes as it is stored has the size, channels and type that its header tells."""
    stored = FORMATS["as stored"]
    for path in image_files():
        data = path.read_bytes()
        try:
            image = decode_image(data, stored, name=path.name)
        except UserError:
            continue
        info = probe_image(data, stored)
        assert tuple(image.shape) == (info.channels, info.height_px, info.width_px), path
        dtype = str(image.dtype).removeprefix("torch.")
        assert dtype == info.dtype or (dtype == "float32" and info.dtype != "uint8"), path

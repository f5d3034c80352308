import io

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageOps
from torchvision.transforms.v2 import functional as TF

from ssl_swin.data.images.decode import decode_image, orientation_of, probe_image
from ssl_swin.data.images.orientation import turned, turned_back
from ssl_swin.data.images.pixel_format import PixelFormat

LEVELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
PHOTO = Image.fromarray(LEVELS).resize((70, 50), Image.Resampling.BICUBIC)
STORED, TURNED = PixelFormat(3, "uint8"), PixelFormat(3, "uint8", exif_rotation=True)


def with_orientation(orientation: int, file_format: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    PHOTO.save(
        file, file_format, exif=exif, **({"lossless": True} if file_format == "WEBP" else {})
    )
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_decode_image__turns_as_pil_does(orientation: int, file_format: str) -> None:
    data = with_orientation(orientation, file_format)
    image = Image.open(io.BytesIO(data))
    expected = TF.pil_to_tensor(ImageOps.exif_transpose(image).convert("RGB"))
    assert orientation_of(data) == orientation
    assert decode_image(data, TURNED, name="x").equal(expected)
    assert decode_image(data, STORED, name="x").equal(TF.pil_to_tensor(image.convert("RGB")))
    assert probe_image(data) == (50, 70, 3, "uint8")  # as it is stored


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("photometric", ["rgb", "palette"])
def test_decode_image__tiff_by_either_reader(orientation: int, photometric: str) -> None:
    """PIL, which reads palettes, turns TIFFs without being asked; that is undone."""
    levels = LEVELS if photometric == "rgb" else LEVELS[..., 0]
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        levels,
        photometric=photometric,
        colormap=ramp if photometric == "palette" else None,
        extratags=[(274, "H", 1, orientation, True)],
    )
    stored = levels.reshape(5, 7, -1).transpose(2, 0, 1).repeat(3 if levels.ndim == 2 else 1, 0)
    data = file.getvalue()
    assert (decode_image(data, STORED, name="x").numpy() == stored).all()
    known = orientation if 1 <= orientation <= 8 else 1
    assert orientation_of(data) == known
    assert (decode_image(data, TURNED, name="x").numpy() == turned(stored, known)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_back__undoes(orientation: int) -> None:
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert (turned_back(turned(values, orientation), orientation) == values).all()


def test_orientation_of__arrays_and_damaged_files() -> None:
    file = io.BytesIO()
    np.save(file, LEVELS)
    for data in (file.getvalue(), b"", b"\xff\xd8", b"II*\0", with_orientation(6, "JPEG")[:30]):
        assert orientation_of(data) == 1


def test_decode_image__turned_pixels_are_contiguous_for_torch() -> None:
    pixels = decode_image(with_orientation(7, "PNG"), TURNED, name="x")
    assert pixels.shape == (3, 70, 50)
    assert torch.equal(pixels.flip(1).flip(1), pixels)

import io

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.images.decode import decode_image, probe_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError

VALUES = np.random.default_rng(0).random((10, 14, 3)).astype(np.float32)
FLOATS = PixelFormat(None, "float32")


def pfm(values: np.ndarray, byte_order: str, scale: str) -> bytes:
    """The lowest row first, as the format has it."""
    kind = b"PF" if values.ndim == 3 else b"Pf"
    header = kind + f"\n{values.shape[1]} {values.shape[0]}\n{scale}\n".encode()
    return header + values[::-1].astype(f"{byte_order}f4").tobytes()


@pytest.mark.parametrize(("byte_order", "scale"), [("<", "-1.0"), (">", "1"), (">", "2.5e+0")])
def test_decode_image__values_as_they_are(byte_order: str, scale: str) -> None:
    colour = pfm(VALUES, byte_order, scale)
    assert probe_image(colour) == (10, 14, 3, "float32")
    decoded = decode_image(colour, FLOATS, name="x")
    assert (decoded.numpy() == VALUES.transpose(2, 0, 1)).all()
    gray = pfm(VALUES[..., 0], byte_order, scale)
    assert probe_image(gray) == (10, 14, 1, "float32")
    assert (decode_image(gray, FLOATS, name="x")[0].numpy() == VALUES[..., 0]).all()


def test_decode_image__written_by_pil() -> None:
    file = io.BytesIO()
    Image.fromarray(VALUES[..., 0]).save(file, "PPM")
    decoded = decode_image(file.getvalue(), PixelFormat(1, "float32"), name="x")
    assert (decoded[0].numpy() == VALUES[..., 0]).all()
    with pytest.raises(UserError, match=r"holds float32 values, which uint8 cannot take"):
        decode_image(file.getvalue(), PixelFormat(1, "uint8"), name="x")


@pytest.mark.parametrize("data", [pfm(VALUES, "<", "-1")[:-1], b"PF\n0 5\n-1\n", b"Pf\n3 2\n-1\n"])
def test_decode_image__damaged(data: bytes) -> None:
    with pytest.raises(UserError, match="cannot decode the image x: the file ends before its"):
        decode_image(data, FLOATS, name="x")
    with pytest.raises(ValueError, match="the file ends before its values do"):
        probe_image(data)

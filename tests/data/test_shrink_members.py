"""`pack --max-short-side-px` of images with masks and boxes: all keep fitting each other."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode

from ssl_swin.cli import main
from ssl_swin.data.decoding import decode_mask, decode_sample
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.geometry import resize
from ssl_swin.data.images.decode import probe_image
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.packing.shrink import shrink_image
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import open_index

SIZE_PX, SMALL_PX = (40, 60), (10, 15)
PIXELS = PixelFormat(3, "uint8")


def png(array: np.ndarray, palette: list[int] | None = None, **options: Any) -> bytes:
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette)
    content = io.BytesIO()
    image.save(content, "PNG", **options)
    return content.getvalue()


def noise(seed: int, *shape: int, most: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most, shape, dtype=np.uint8)


def sample_with(**members: Member) -> EncodedSample:
    encoded = EncodedSample.of_image(png(noise(0, *SIZE_PX, 3)), "png", None, "some")
    for name, member in members.items():
        encoded = encoded.with_member(name, member)
    return encoded


def shrunk(encoded: EncodedSample) -> EncodedSample:
    return shrink_image(encoded, probe_image(encoded.data, PIXELS), 10, pixels=PIXELS)


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def gray_of_bits(bits: int) -> bytes:
    """A gray PNG of 2 or 4 bits, written by hand as PIL writes none."""
    import struct
    import zlib

    levels = noise(3, *SIZE_PX, most=2**bits)
    per_byte = 8 // bits
    rows = np.zeros((SIZE_PX[0], -(-SIZE_PX[1] // per_byte)), dtype=np.uint8)
    for place in range(per_byte):
        part = levels[:, place::per_byte]
        rows[:, : part.shape[1]] |= part << np.uint8(8 - bits * (place + 1))
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", SIZE_PX[1], SIZE_PX[0], bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


MASKS = {
    "gray": png(noise(1, *SIZE_PX)),
    "black and white": png(noise(1, *SIZE_PX, most=2).astype(bool)),
    "2 bits": gray_of_bits(2),
    "4 bits": gray_of_bits(4),
    "palette": png(noise(1, *SIZE_PX, most=3), [9, 8, 7, 0, 0, 0, 200, 0, 3]),
    "small palette": png(noise(1, *SIZE_PX, most=3), [9, 8, 7, 0, 0, 0, 200, 0, 3], bits=2),
    "16 bits": png(noise(1, *SIZE_PX).astype(np.uint16) * 200),
    "colours": png(noise(1, *SIZE_PX, 3)),
    "array": npy(noise(1, *SIZE_PX).astype(np.int32) + 70000),
    "array of colours": npy(noise(1, *SIZE_PX, 3)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_shrink__of_a_mask_each_pixel_takes_what_lies_at_its_centre(kind: str) -> None:
    """A quarter of the size: of pixels 0 to 3 the centre lies between 1 and 2, and 2 is taken."""
    extension = "npy" if kind.startswith("array") else "png"
    before = sample_with(mask=Member(MASKS[kind], extension))
    after = shrunk(before)
    assert probe_image(after.data, PIXELS)[:2] == SMALL_PX
    for as_colours in (False, True) if extension == "png" and kind != "16 bits" else (False,):
        mask, small = (decode_mask(each, as_colours=as_colours) for each in (before, after))
        assert mask.unique().numel() > 1
        assert small.dtype == mask.dtype and small.equal(mask[2::4, 2::4])


def objects() -> dict[str, Any]:
    """Two, the first of 12 x 8 px: columns 8 to 20, rows 4 to 12."""
    first = [0] * (8 * 40)
    for _ in range(12):
        first += [0] * 4 + [1] * 8 + [0] * 28
    first += [0] * (60 * 40 - len(first))
    turns = np.flatnonzero(np.diff(first)) + 1
    counts = np.diff([0, *turns, 60 * 40]).tolist()
    return {
        "boxes": [[8, 4, 20, 12], [0.5, 1, 60, 39]],
        "labels": [1, 0],
        "crowd": [False, True],
        "areas": [96, 2000.5],
        "masks": [
            {"size": [40, 60], "counts": counts},
            {"size": [40, 60], "counts": [0, 60 * 40]},
        ],
    }


def test_shrink__boxes_areas_and_masks_of_objects() -> None:
    data = json.dumps(objects()).encode()
    after = shrunk(sample_with(boxes=Member(data, "json")))
    content = json.loads(after.member("boxes").data)
    assert content["boxes"] == [[2, 1, 5, 3], [0.125, 0.25, 15, 9.75]]
    assert content["areas"] == [6, 2000.5 / 16]
    assert (content["labels"], content["crowd"]) == ([1, 0], [False, True])
    sample = decode_sample(after, PIXELS, members=("boxes",))
    assert sample.size_px == SMALL_PX
    expected = torch.zeros(2, *SMALL_PX, dtype=torch.uint8)
    expected[0, 1:3, 2:5] = 1
    expected[1] = 1
    assert sample.box_masks is not None and sample.box_masks.equal(expected)


@pytest.mark.parametrize("short_side_px", [7, 23, 39])
def test_shrink__is_what_training_does_to_a_sample(short_side_px: int) -> None:
    """Scales that are no whole numbers, and other ones for height and width."""
    data = json.dumps(objects()).encode()
    before = sample_with(mask=Member(MASKS["gray"], "png"), boxes=Member(data, "json"))
    info = probe_image(before.data, PIXELS)
    after = shrink_image(before, info, short_side_px, pixels=PIXELS)
    members = ("mask", "boxes")
    small = decode_sample(after, PIXELS, members=members)
    whole = decode_sample(before, PIXELS, members=members)
    expected = resize(whole, small.size_px, InterpolationMode.BILINEAR)
    assert min(small.size_px) == short_side_px
    for name in ("mask", "box_masks"):
        assert getattr(small, name).equal(getattr(expected, name))
    for name in ("boxes", "box_areas"):
        torch.testing.assert_close(getattr(small, name), getattr(expected, name))


def test_shrink__keeps_what_stays_as_it_is() -> None:
    data = json.dumps(objects()).encode()
    members = {"mask": Member(MASKS["gray"], "png"), "boxes": Member(data, "json")}
    for image in (png(noise(0, 10, 60, 3)), png(np.zeros((*SIZE_PX, 3), np.uint8))):
        encoded = EncodedSample("some", None, {"image": Member(image, "png"), **members})
        few = shrink_image(encoded, probe_image(image, PIXELS), 39, pixels=PIXELS)
        assert (few is encoded) == (len(few.data) == len(image))
    exif = Image.Exif()
    exif[274] = 6  # turned: are the boxes drawn on the picture as it is stored?
    turned = png(noise(0, *SIZE_PX, 3), exif=exif)
    encoded = EncodedSample("some", None, {"image": Member(turned, "png"), **members})
    assert shrunk(encoded) is encoded
    alone = EncodedSample.of_image(turned, "png", None, "some")
    assert len(shrunk(alone).data) < len(turned)


def test_pack__scales_objects_of_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(png(noise(0, *SIZE_PX, 3)))
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [8, 4, 12, 8], "area": 96}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    Path("photos/boxes.json").write_text(json.dumps(content))
    options = ["--coco", "photos", "--val-ratio", "0", "--workers", "0"]
    assert main(["pack", "photos", "out", *options, "--max-short-side-px", "10"]) == 0
    (encoded,) = iter_of(ShardDataset(open_index("out"), "train"))
    assert probe_image(encoded.data, PIXELS)[:2] == SMALL_PX
    found = json.loads(encoded.member("boxes").data)
    assert (found["boxes"], found["areas"]) == ([[2, 1, 5, 3]], [6])


def iter_of(dataset: ShardDataset) -> list[EncodedSample]:
    return [dataset[index] for index in range(len(dataset))]

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_swin.data.box_lists import has_masks
from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.errors import UserError

LEVELS = np.random.default_rng(0).integers(0, 2, (6, 9), dtype=np.uint8)
PALETTE = [9, 9, 9, 0, 0, 0, 250, 1, 2]  # colours that have nothing to do with the classes


def png(array: np.ndarray, mode: str | None = None, bits: int = 8) -> bytes:
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette(PALETTE)
    elif mode is not None:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG", bits=bits)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


IMAGE = EncodedSample.of_image(png(LEVELS), "png", 4, "shard:3")


def with_mask(data: bytes, extension: str = "png") -> EncodedSample:
    return IMAGE.with_member("mask", Member(data, extension))


def decode_mask(data: bytes) -> torch.Tensor:
    mask = decode_sample(with_mask(data), PixelFormat(1, "uint8"), members=["mask"]).mask
    assert mask is not None and mask.shape == (6, 9)
    return mask


@pytest.mark.parametrize(
    ("stored", "encode", "dtype"),
    [
        (LEVELS * 255, png, torch.uint8),
        (LEVELS * 2, lambda array: png(array, "P"), torch.uint8),
        (LEVELS, lambda array: png(array, "P", bits=1), torch.uint8),
        (LEVELS, lambda array: png(array * 255, "1"), torch.uint8),
        (LEVELS.astype(np.uint16) * 40000, png, torch.int64),
        (LEVELS * 200, npy, torch.uint8),
        (LEVELS.astype(np.int32) * 100_000 - 1, npy, torch.int64),
        (LEVELS.astype(bool), npy, torch.uint8),
    ],
)
def test_mask__values_are_those_stored(stored, encode, dtype):
    mask = decode_mask(encode(stored))
    assert mask.dtype == dtype
    assert mask.tolist() == stored.astype(np.int64).tolist()


@pytest.mark.parametrize(("bits", "largest"), [(2, 3), (4, 15)])
def test_mask__gray_png_of_few_bits(bits, largest):
    """Written by hand, since PIL widens such gray levels to 8 bits and writes no such files."""
    classes = np.random.default_rng(1).integers(0, largest + 1, (6, 9), dtype=np.uint8)
    assert decode_mask(packed_gray_png(classes, bits)).tolist() == classes.tolist()


def packed_gray_png(classes: np.ndarray, bits: int) -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    height, width = classes.shape
    digits = (classes[..., None] >> np.arange(bits)[::-1]) & 1
    rows = np.packbits(digits.reshape(height, -1).astype(np.uint8), axis=1)
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(content)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(LEVELS, "LA"), r"cannot decode the mask of shard:3: it holds uint8 .*\(6, 9, 2\)"),
        (npy(LEVELS.astype(np.float32)), "it holds float32 values"),
        (npy(LEVELS[0]), r"values of shape \(9,\)"),
        (png(LEVELS)[:60], "cannot decode the mask of shard:3"),
        (b"\xff\xd8", "neither a PNG nor an .npy file; convert it without loss"),
        (b"", "neither a PNG nor an .npy file"),
        (png(LEVELS.T.copy()), r"is 9 x 6 px \(height x width\), its image 6 x 9"),
    ],
)
def test_mask__refuses(data, message):
    with pytest.raises(UserError, match=message):
        decode_mask(data)


def test_decode_sample__missing_members_and_other_ones():
    boxes = {"boxes": [[0, 1, 2, 3.5], [1, 1, 4, 4]], "labels": [5, 0]}
    sample = (
        with_mask(png(LEVELS))
        .with_member("json", Member(json.dumps({"a": [1]}).encode(), "json"))
        .with_member("boxes", Member(json.dumps(boxes).encode(), "json"))
        .with_member("depth", Member(npy(np.arange(3)), "npy"))
        .with_member("txt", Member("grün".encode(), "txt"))
        .with_member("video", Member(b"\0\1", "mp4"))
    )
    alone = decode_sample(sample, PixelFormat(3, "uint16"))
    assert (alone.pixels.dtype, alone.pixels.shape) == (torch.uint16, (3, 6, 9))
    assert (alone.mask, alone.boxes, alone.box_labels, alone.members) == (None, None, None, {})
    assert (alone.label, alone.name, alone.size_px) == (4, "shard:3", (6, 9))
    assert not alone.is_annotated
    every = decode_sample(sample, PixelFormat(1, "uint8"), members=tuple(sample.members))
    assert every.mask is not None and every.mask.equal(every.pixels[0])
    assert every.boxes is not None and every.boxes.tolist() == boxes["boxes"]
    assert every.box_labels is not None and every.box_labels.tolist() == boxes["labels"]
    assert every.is_annotated
    assert every.members["depth"].tolist() == [0, 1, 2]
    others = {name: every.members[name] for name in ("json", "txt", "video")}
    assert others == {"json": {"a": [1]}, "txt": "grün", "video": b"\0\1"}
    with pytest.raises(UserError, match=r"the sample shard:3 has no member 'mask', only: image$"):
        decode_sample(IMAGE, PixelFormat(1, "uint8"), members=["image", "mask"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "the member 'boxes' of shard:3 is no JSON"),
        (b"[]", "the boxes of shard:3 are not of the form"),
        (b'{"boxes": [[1, 2, 3, 4]]}', "not of the form .*'labels'"),
        (b'{"boxes": [[1, 2, 3]], "labels": [1]}', "not of the form"),
        (b'{"boxes": [[1, 2, 3, 4]], "labels": []}', "1 boxes and 0 labels do not fit"),
        (b'{"boxes": [[1, 2, 3, NaN]], "labels": [0]}', "a coordinate is not finite"),
        (b'{"boxes": [[1, 2, 3, 4]], "labels": [-1]}', "a label is -1, and the first class is 0"),
        (b'{"boxes": [[1, 2, 3, 4]], "labels": [1.5]}', "a label is no whole number"),
        (b'{"boxes": [[9, 2, 3, 4]], "labels": [0]}', r"box 0 ends before it begins, \[9.0, 2.0"),
        (b'{"boxes": [[1, 2, 3, 4]], "labels": [0], "crowd": []}', "1 boxes and 0 crowd do not"),
        (
            b'{"boxes": [[1, 2, 3, 4]], "labels": [0], "masks": [{"size": [9, 6], "counts": []}]}',
            r"a mask is 9 x 6 px \(height x width\), its image 6 x 9",
        ),
    ],
)
def test_boxes__refuses(content, message):
    sample = IMAGE.with_member("boxes", Member(content, "json"))
    with pytest.raises(UserError, match=message):
        decode_sample(sample, PixelFormat(1, "uint8"), members=["boxes"])


def test_boxes__none_in_the_image():
    sample = IMAGE.with_member("boxes", Member(b'{"boxes": [], "labels": []}', "json"))
    decoded = decode_sample(sample, PixelFormat(1, "uint8"), members=["boxes"])
    assert decoded.boxes is not None and decoded.boxes.shape == (0, 4)


def test_boxes__what_else_is_known_of_them():
    rle = {"size": [6, 9], "counts": [6, 2, 46]}
    content = {"boxes": [[0, 1, 2, 3.5]], "labels": [5], "crowd": [True], "areas": [2.5]}
    member = Member(json.dumps(content | {"masks": [rle]}).encode(), "json")
    sample = IMAGE.with_member("boxes", member)
    decoded = decode_sample(sample, PixelFormat(1, "uint8"), members=["boxes"])
    assert decoded.box_crowd is not None and decoded.box_crowd.tolist() == [True]
    assert decoded.box_areas is not None and decoded.box_areas.tolist() == [2.5]
    assert decoded.box_masks is not None and decoded.box_masks.nonzero().tolist() == [
        [0, 0, 1],
        [0, 1, 1],
    ]
    boxes_alone = decode_sample(sample, PixelFormat(1, "uint8"), members=["boxes"], box_masks=False)
    assert boxes_alone.box_masks is None and boxes_alone.box_crowd is not None
    assert has_masks(sample)


def test_has_masks__nothing_to_tell_without_objects():
    def asked(content):
        return has_masks(IMAGE.with_member("boxes", Member(content, "json")))

    assert asked(b'{"boxes": [], "labels": []}') is None
    assert asked(b'{"boxes": [[1, 2, 3, 4]], "labels": [0]}') is False
    with pytest.raises(UserError, match="the boxes of shard:3 are no JSON object"):
        asked(b"[]")


def test_other_members__refuses_what_cannot_be_decoded():
    for extension, data in (("txt", b"\xff"), ("npy", b"no array")):
        sample = IMAGE.with_member("extra", Member(data, extension))
        with pytest.raises(UserError, match="cannot decode the member 'extra' of shard:3"):
            decode_sample(sample, PixelFormat(1, "uint8"), members=["extra"])

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.mask_classes import IGNORED, MaskClasses
from ssl_swin.data.segment_samples import (
    SegmentSample,
    SegmentTransform,
    collate_segments,
    without_filling,
)
from ssl_swin.data.segment_views import WholeImage
from ssl_swin.errors import UserError


def png(values, palette=False):
    image = Image.fromarray(np.asarray(values, dtype=np.uint8))
    if palette:
        image = image.convert("P") if image.mode != "L" else image
        image = Image.fromarray(np.asarray(values, dtype=np.uint8), mode="P")
        image.putpalette([value for n in range(256) for value in (n, 255 - n, 7)])
    file = io.BytesIO()
    image.save(file, "png")
    return Member(file.getvalue(), "png")


def encoded(mask, palette=False):
    image = np.arange(3 * len(mask) * len(mask[0]), dtype=np.uint8)
    pixels = png(image.reshape(len(mask), len(mask[0]), 3))
    return EncodedSample("a", None, {"image": pixels, "mask": png(mask, palette)})


def transform(masks=None, num_classes=3):
    pixels = PixelFormat(3, "uint8")
    return SegmentTransform(
        WholeImage(), pixels, masks or MaskClasses(), num_classes=num_classes, seed=0
    )


@pytest.mark.parametrize("palette", [False, True])
def test_transform__reads_indices_of_gray_and_palette(palette):
    sample = transform()(encoded([[0, 1, 2], [255, 2, 1]], palette), 0)
    assert sample.classes.tolist() == [[0, 1, 2], [IGNORED, 2, 1]]
    assert sample.pixels.shape == (3, 2, 3) and sample.name == "a"


def test_transform__names_a_value_that_is_no_class():
    with pytest.raises(UserError, match="the mask of a has the value 9, and what is known"):
        transform()(encoded([[0, 9]]), 0)


def test_transform__refuses_a_mask_of_colours_and_of_another_size():
    sample = encoded([[0, 1]])
    colours = sample.with_member("mask", sample.members["image"])
    with pytest.raises(UserError, match=r"mask of a is of colours \(0-1-2, 3-4-5\): give"):
        transform()(colours, 0)
    with pytest.raises(UserError, match=r"the mask of a is 1 x 1 px .* its image 1 x 2"):
        transform()(sample.with_member("mask", png([[0]])), 0)


def sample(height, width, name):
    pixels = torch.full((2, height, width), 9, dtype=torch.uint8)
    return SegmentSample(pixels, torch.ones(height, width, dtype=torch.int16), name)


def test_collate__fills_up_to_the_largest_and_gives_each_image_back():
    samples = [sample(2, 5, "a"), sample(4, 3, "b")]
    batch = collate_segments(samples)
    assert batch.pixels.shape == (2, 2, 4, 5) and batch.names == ["a", "b"]
    assert batch.sizes_px.tolist() == [[2, 5], [4, 3]]
    assert batch.pixels[0, :, 2:].eq(0).all() and batch.classes[1, :, 3:].eq(IGNORED).all()
    for (image, classes), given in zip(batch.images(batch.pixels), samples, strict=True):
        assert image.equal(given.pixels) and classes.equal(given.classes)
    asked = samples[0]._replace(least_px=(3, 7))
    assert collate_segments([asked, samples[1]]).pixels.shape == (2, 2, 4, 7)


def test_without_filling__leaves_zeros_after_normalising():
    batch = collate_segments([sample(2, 5, "a"), sample(4, 3, "b")])
    images = without_filling(batch.pixels.float() - 3, batch.sizes_px)
    assert images[0, :, :2].eq(6).all() and images[0, :, 2:].eq(0).all()
    assert images[1, :, :, :3].eq(6).all() and images[1, :, :, 3:].eq(0).all()

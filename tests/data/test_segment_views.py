"""Scale, crop, flip and colours of an image with its classes, in the original's order."""

import colorsys

import numpy as np
import pytest
import torch

from ssl_swin.data.mask_classes import IGNORED
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.sample import Sample
from ssl_swin.data.segment_views import (
    SegmentAugmentation,
    WholeImage,
    _saturated,
    _turned,
    largest_share,
)
from ssl_swin.errors import UserError

PLAIN = {
    "short_px": 32,
    "long_px": 128,
    "ratio": (1.0, 1.0),
    "max_class_share": 1.0,
    "flip_probability": 0.0,
    "brightness": 0,
    "contrast": None,
    "saturation": None,
    "hue_degrees": None,
}
OFFICIAL = PLAIN | {
    "ratio": (0.5, 2.0),
    "max_class_share": 0.75,
    "flip_probability": 0.5,
    "brightness": 32,
    "contrast": (0.5, 1.5),
    "saturation": (0.5, 1.5),
    "hue_degrees": 36,
}


def augmented(sample, number=0, size_px=(16, 16), **changes):
    augmentation = SegmentAugmentation(size_px, **(PLAIN | changes))
    return augmentation(sample, keyed_generator(0, number, "name"))


def coordinates(height=32, width=48):
    """An image that tells where each pixel is from, and a mask that tells the same."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)
    return Sample(pixels, (100 * rows + columns).to(torch.int16))


def test_augmentation__pixels_and_classes_stay_together():
    seen = set()
    for number in range(40):
        result = augmented(coordinates(), number, flip_probability=0.5)
        assert result.pixels.shape == (3, 16, 16) and result.mask.shape == (16, 16)
        expected = 100 * result.pixels[0].int() + result.pixels[1].int()
        assert result.mask.int().equal(expected)
        seen.add(
            (int(result.pixels[0, 0, 0]), bool(result.pixels[1, 0, 0] > result.pixels[1, 0, 1]))
        )
    tops, flips = {top for top, _ in seen}, {flipped for _, flipped in seen}
    assert len(tops) > 8 and min(tops) <= 2 and max(tops) >= 14 and flips == {False, True}


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [((32, 48), 1.0, (32, 48)), ((64, 64), 0.5, (16, 16)), ((10, 100), 1.0, (13, 40))],
)
def test_augmentation__scales_within_both_limits(size, ratio, expected):
    sample = Sample(torch.zeros(3, *size, dtype=torch.uint8), torch.zeros(size, dtype=torch.int16))
    result = augmented(sample, size_px=(40, 40), ratio=(ratio, ratio))
    assert result.pixels.shape[1:] == tuple(min(40, side) for side in expected)


def test_augmentation__draws_a_crop_again_while_one_class_covers_it():
    classes = torch.zeros(32, 64, dtype=torch.int16)
    classes[:, 30:34] = 1  # seldom in a crop, and never a quarter of one of 16 px unless whole
    sample = Sample(torch.zeros(3, 32, 64, dtype=torch.uint8), classes)
    shares = {
        share: [
            largest_share(augmented(sample, number, max_class_share=share).mask)
            for number in range(50)
        ]
        for share in (1.0, 0.8)
    }
    alone = {share: sum(each == 1.0 for each in values) for share, values in shares.items()}
    assert alone[1.0] > 20 > 5 > alone[0.8]  # eleven draws, of which the last one stands
    first = [augmented(sample, number, max_class_share=0.8).mask for number in range(5)]
    again = [augmented(sample, number, max_class_share=0.8).mask for number in range(5)]
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))


def test_largest_share__leaves_out_unlabelled_pixels():
    assert largest_share(torch.tensor([0, 0, 0, 1, IGNORED, IGNORED])) == 0.75
    assert largest_share(torch.tensor([2, 2])) == 1.0
    assert largest_share(torch.tensor([IGNORED])) == 1.0


def test_brightness_and_contrast__keep_to_the_originals_range_and_cut_off():
    values = torch.full((3, 32, 32), 100, dtype=torch.uint8)
    sample = Sample(values, torch.zeros(32, 32, dtype=torch.int16))
    levels = {int(augmented(sample, n, brightness=32).pixels[0, 0, 0]) for n in range(300)}
    assert 66 < min(levels) < 75 and 125 < max(levels) < 133 and 100 in levels
    levels = [int(augmented(sample, n, contrast=(0.5, 1.5)).pixels[0, 0, 0]) for n in range(300)]
    assert 50 <= min(levels) < 55 and 145 < max(levels) < 151
    assert 110 < sum(level == 100 for level in levels) < 190
    white = Sample(torch.full((3, 32, 32), 250, dtype=torch.uint8), sample.mask)
    brightest = max(int(augmented(white, n, brightness=32).pixels.max()) for n in range(50))
    assert brightest == 255


@pytest.mark.parametrize(("dtype", "level"), [(torch.uint16, 1000), (torch.float32, 0.01)])
def test_colours__of_other_types_change_in_their_own_range(dtype, level):
    values = torch.full((5, 32, 32), level, dtype=torch.float32).to(dtype)
    sample = Sample(values, torch.zeros(32, 32, dtype=torch.int16))
    results = [augmented(sample, n, brightness=32, contrast=(0.5, 1.5)) for n in range(30)]
    assert {each.pixels.dtype for each in results} == {dtype}
    assert len({float(each.pixels[0, 0, 0]) for each in results}) > 10
    full = 65535 if dtype == torch.uint16 else 1
    assert max(float(each.pixels.float().max()) for each in results) > 0.05 * full


def test_saturation_and_hue__are_those_of_colorsys():
    colour = (200, 120, 40)
    pixels = torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    hue, saturation, value = colorsys.rgb_to_hsv(*(each / 255 for each in colour))
    expected = {
        "saturated": colorsys.hsv_to_rgb(hue, min(1, saturation * 0.5), value),
        "turned": colorsys.hsv_to_rgb((hue + 20 / 256) % 1, saturation, value),
    }
    actual = {"saturated": _saturated(pixels, 0.5), "turned": _turned(pixels, 20)}
    for name, result in actual.items():
        assert result.dtype == torch.uint8
        np.testing.assert_allclose(result[:, 0, 0].numpy() / 255, expected[name], atol=0.02)


def test_augmentation__is_the_same_for_the_same_key_and_changes_no_label():
    sample = coordinates(40, 40)
    one, two = (augmented(sample, 3, **OFFICIAL) for _ in range(2))
    assert one.pixels.equal(two.pixels) and one.mask.equal(two.mask)
    assert not augmented(sample, 4, **OFFICIAL).pixels.equal(one.pixels)
    known = set(sample.mask.flatten().tolist())
    assert all(
        set(augmented(sample, number, **OFFICIAL).mask.flatten().tolist()) <= known
        for number in range(10)
    )


def test_whole_image__is_left_alone():
    sample = coordinates()
    assert WholeImage()(sample, keyed_generator(0)) is sample


def test_augmentation__refuses_colours_of_what_has_none():
    augmentation = SegmentAugmentation((16, 16), **OFFICIAL)
    augmentation.check_samples(channels=3, dtype="uint8", is_annotated=True)
    for channels, dtype in ((1, "uint8"), (3, "uint16")):
        with pytest.raises(UserError, match=r"augment.saturation=null augment.hue_degrees=null"):
            augmentation.check_samples(channels=channels, dtype=dtype, is_annotated=True)
    SegmentAugmentation((16, 16), **PLAIN).check_samples(
        channels=7, dtype="float32", is_annotated=True
    )
    with pytest.raises(UserError, match="max_class_share must be"):
        SegmentAugmentation((16, 16), **(PLAIN | {"max_class_share": 0.0}))

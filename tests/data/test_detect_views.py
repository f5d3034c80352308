"""Flip, sizes and crops of an image with its objects, in the original's order."""

from collections import Counter

import pytest
import torch

from ssl_swin.data.detect_views import DetectAugmentation
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.sample import Sample
from ssl_swin.errors import UserError

RECIPE = {
    "flip_probability": 0.5,
    "short_px": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
    "long_px": 1333,
    "crop_probability": 0.5,
    "crop_short_px": [400, 500, 600],
    "crop_px": (384, 600),
}
PLAIN = RECIPE | {"flip_probability": 0.0, "crop_probability": 0.0}


def blocks():
    """Two objects, each in a channel of its own, whose pixels, boxes and masks tell the same."""
    pixels = torch.zeros(2, 40, 60)
    pixels[0, 5:35, 0:20], pixels[1, 20:40, 30:60] = 1, 1
    boxes = torch.tensor([[0.0, 5.0, 20.0, 35.0], [30.0, 20.0, 60.0, 40.0]])
    masks = pixels.to(torch.uint8)
    labels = torch.tensor([0, 1])
    return Sample(pixels, boxes=boxes, box_labels=labels, box_masks=masks)


def test_recipe__is_one_of_two_evenly_and_of_eleven_sizes():
    """Only shapes are computed: one row of pixels would do, were an image not scaled."""
    sizes, crops = Counter(), 0
    augmentation = DetectAugmentation(**{**RECIPE, "short_px": [8, 9, 10], "crop_px": (5, 8)})
    augmentation.crop_short_px = (10,)
    for number in range(300):
        result = augmentation(Sample(torch.zeros(1, 20, 40)), keyed_generator(number))
        height, width = result.size_px
        sizes[min(height, width)] += 1
        crops += width != 2 * height
    assert set(sizes) == {8, 9, 10} and min(sizes.values()) > 70
    assert 110 < crops < 190


@pytest.mark.parametrize("crop_probability", [0.0, 1.0])
def test_objects__stay_on_their_pixels(crop_probability):
    changes = {"short_px": [32, 40, 50], "crop_short_px": [30, 40], "crop_px": (20, 30)}
    augmentation = DetectAugmentation(**{**RECIPE, **changes, "crop_probability": crop_probability})
    seen = set()
    for number in range(60):
        result = augmentation(blocks(), keyed_generator(number))
        seen.add(len(result.boxes))
        assert len(result.box_labels) == len(result.box_masks) == len(result.boxes)
        assert result.box_masks.shape[1:] == result.size_px and result.pixels.is_contiguous()
        for box, label, mask in zip(result.boxes, result.box_labels, result.box_masks, strict=True):
            shown = result.pixels[label] > 0.99  # without borders, which are interpolated
            assert mask.sum() >= shown.sum() and mask[shown].all()
            rows, columns = mask.nonzero().unbind(1)
            ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert (box - torch.tensor(ends)).abs().max() <= 2
    assert seen == ({2} if crop_probability == 0 else {1, 2})


def test_crop__sides_are_drawn_between_two_limits_or_are_the_images():
    augmentation = DetectAugmentation(**{**PLAIN, "crop_px": (10, 20)})
    crops = [
        augmentation._cropped(Sample(torch.zeros(1, 14, 50)), keyed_generator(n)).size_px
        for n in range(200)
    ]
    assert {height for height, _ in crops} == set(range(10, 15))
    assert {width for _, width in crops} == set(range(10, 21))
    tiny = augmentation._cropped(Sample(torch.zeros(1, 3, 4)), keyed_generator(0))
    assert tiny.size_px == (3, 4)


@pytest.mark.parametrize(
    ("size", "expected"), [((20, 30), (10, 15)), ((20, 200), (4, 40)), ((300, 20), (40, 3))]
)
def test_scale__keeps_the_shape_within_both_limits(size, expected):
    augmentation = DetectAugmentation(**{**PLAIN, "short_px": [10], "long_px": 40})
    result = augmentation(Sample(torch.zeros(1, *size)), keyed_generator(0))
    assert result.size_px == expected


def test_flip__alone():
    augmentation = DetectAugmentation(
        (224, 224), **{**PLAIN, "short_px": [40], "flip_probability": 1.0}
    )
    result = augmentation(blocks(), keyed_generator(0))
    assert result.pixels.equal(blocks().pixels.flip(-1))
    assert result.boxes.tolist() == [[40, 5, 60, 35], [0, 20, 30, 40]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_px": []}, "short_px must be a list of whole numbers"),
        ({"crop_px": (600, 384)}, "crop_px must be .* the smaller first"),
        ({"flip_probability": 1.5}, "flip_probability must be a number in"),
        ({"long_px": 0}, "long_px must be a whole number"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(UserError, match=message):
        DetectAugmentation(**RECIPE | changes)

"""Views of images of any shape: bounded work, and ordinary images equal to the bit."""

import time
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from ssl_swin.data import transforms
from ssl_swin.data.rng import keyed_generator
from ssl_swin.data.sample import Sample
from ssl_swin.data.transforms import CentreCrop, FinetuneAugmentation, RandomCrop
from ssl_swin.errors import UserError

VIEW = CentreCrop((224, 224))
CROPS = {"crop_scale": (0.08, 1.0), "crop_aspect": (3 / 4, 4 / 3), "flip_probability": 0.5}
EXTREME = [(2, 30000), (30000, 2), (1, 20000), (20000, 1), (3, 4000), (4000, 3), (1, 1), (1, 17)]


def resized_first(pixels: Tensor, size_px: tuple[int, int], crop_ratio: float) -> Tensor:
    """The evaluation view as it was written down: the whole image is resized, then cropped."""
    height_px, width_px = pixels.shape[-2:]
    least = [int(side / crop_ratio) for side in size_px]
    if least[0] * width_px >= least[1] * height_px:
        resized_px = least[0], least[0] * width_px // height_px
    else:
        resized_px = least[1] * height_px // width_px, least[1]
    resized = TF.resize(pixels, list(resized_px), InterpolationMode.BICUBIC, antialias=True)
    top, left = (round((a - b) / 2) for a, b in zip(resized_px, size_px, strict=True))
    return resized[..., top : top + size_px[0], left : left + size_px[1]]


def noise(height_px: int, width_px: int) -> Tensor:
    draw = np.random.default_rng((height_px, width_px))
    return torch.from_numpy(draw.integers(0, 256, (3, height_px, width_px), dtype=np.uint8))


def test_centre_crop__images_up_to_16_times_as_long_are_equal_to_the_bit() -> None:
    draw = np.random.default_rng(0)
    ordinary = [(3, 3 * 16), (3 * 16, 3), (5, 80), (1, 16), (375, 500), (500, 333), (64, 1000)]
    drawn = [
        (int(short), int(short * draw.uniform(1, 16))) for short in draw.integers(1, 60, size=40)
    ]
    for height_px, width_px in (*ordinary, *drawn, *(size[::-1] for size in drawn)):
        for size_px, crop_ratio in (((32, 32), 7 / 8), ((24, 40), 1.0), ((48, 16), 0.5)):
            if max(height_px / width_px, width_px / height_px) > 16 * min(size_px) / max(size_px):
                continue
            pixels = noise(height_px, width_px)
            view = CentreCrop(size_px, crop_ratio=crop_ratio).on_pixels(pixels, keyed_generator(0))
            assert view.equal(resized_first(pixels, size_px, crop_ratio))


@pytest.mark.parametrize(
    "shape", [(10, 400), (400, 10), (7, 333), (40, 1001), (1000, 41), (2, 101)]
)
def test_centre_crop__of_longer_images_it_is_the_same_part(shape: tuple[int, int]) -> None:
    """It may differ by rounding alone, since the scale is rounded to whole pixels."""
    ramp = torch.linspace(0, 255, max(shape)).round().to(torch.uint8)
    pixels = ramp.expand(3, *shape) if shape[1] > shape[0] else ramp[:, None].expand(3, *shape)
    view = VIEW.on_pixels(pixels.contiguous(), keyed_generator(0)).int()
    difference = (view - resized_first(pixels.contiguous(), (224, 224), 224 / 256).int()).abs()
    assert difference.max() <= 3 and difference.float().mean() < 0.1


@pytest.mark.parametrize("shape", EXTREME)
@pytest.mark.parametrize("view", ["centre", "random", "finetune", "wide", "narrow crops"])
def test_views__work_is_bounded(shape: tuple[int, int], view: str) -> None:
    """What is resized is of at most 24 squares of the crop's longer side, whatever the shape."""
    augmentation = {
        "centre": VIEW,
        "random": RandomCrop((224, 224), **CROPS),
        "finetune": FinetuneAugmentation(
            (224, 224), mean=(0.5, 0.5, 0.5), auto_augment="rand-m9-mstd0.5-inc1", **CROPS
        ),
        "wide": CentreCrop((32, 480)),
        "narrow crops": RandomCrop((224, 224), **(CROPS | {"crop_aspect": (0.2, 0.3)})),
    }[view]
    areas = []

    def resize(sample: Sample, size_px: tuple[int, int], mode: InterpolationMode) -> Sample:
        areas.append(size_px[0] * size_px[1])
        return real_resize(sample, size_px, mode)

    real_resize = transforms.resize
    start_s = time.perf_counter()
    with mock.patch.object(transforms, "resize", resize):
        pixels = augmentation.on_pixels(noise(*shape), keyed_generator(0))
    assert time.perf_counter() - start_s < 2
    assert pixels.shape[1:] == ((32, 480) if view == "wide" else (224, 224))
    longer_px = max(pixels.shape[1:]) * 8 / 7
    assert all(area <= 24 * longer_px**2 for area in areas)


def test_centre_crop__masks_and_boxes_follow() -> None:
    """A mask of the columns' numbers over a strip: its centre remains."""
    columns = torch.arange(2000).expand(4, 2000)
    box = torch.tensor([[999.0, 0.0, 1001.0, 4.0], [0.0, 0.0, 9.0, 4.0]])
    sample = Sample(columns.to(torch.uint8)[None], columns, box, torch.tensor([7, 8]))
    view = CentreCrop((32, 32), crop_ratio=1.0)(sample, keyed_generator(0))
    assert view.mask is not None and view.boxes is not None and view.box_labels is not None
    assert view.mask[0].tolist() == [998 + column // 8 for column in range(32)]
    assert view.pixels.shape == (1, 32, 32)
    assert view.boxes.tolist() == [[8.0, 0.0, 24.0, 32.0]] and view.box_labels.tolist() == [7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_scale": (2, 3)}, r"crop_scale must be a list of 2 numbers in \(0, 1\]"),
        ({"crop_scale": (0, 0)}, r"crop_scale must .*the smaller first, got \[0, 0\]"),
        ({"crop_scale": (0.9, 0.1)}, r"crop_scale must .*got \[0\.9, 0\.1\]"),
        ({"crop_scale": (float("nan"), 1)}, r"crop_scale must .*got \[nan, 1\]"),
        ({"crop_scale": (0.5,)}, r"crop_scale must .*got \[0\.5\]"),
        ({"crop_aspect": (1,)}, "crop_aspect must be a list of 2 numbers above 0, the smaller"),
        ({"crop_aspect": (1, float("inf"))}, r"crop_aspect must .*got \[1, inf\]"),
        ({"flip_probability": 2}, r"flip_probability must be a number in \[0, 1\], got 2"),
        ({"flip_probability": float("nan")}, "flip_probability must .*, got nan"),
    ],
)
def test_random_crop__refuses_what_no_crop_can_be(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RandomCrop((32, 32), **(CROPS | changes))
    with pytest.raises(UserError, match=message):
        FinetuneAugmentation((32, 32), mean=(0.5,), auto_augment=None, **(CROPS | changes))


@pytest.mark.parametrize("crop_ratio", [0, -1, 1.5, float("nan")])
def test_centre_crop__refuses_other_ratios(crop_ratio: float) -> None:
    with pytest.raises(UserError, match=r"crop_ratio must be a number in \(0, 1\], got"):
        CentreCrop((32, 32), crop_ratio=crop_ratio)

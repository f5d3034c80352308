import pytest
import torch

from ssl_swin.errors import UserError
from ssl_swin.pixels import denormalize, normalize

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def test_normalize__by_hand():
    pixels = torch.tensor([[[[0, 255, 51]], [[0, 255, 51]]]], dtype=torch.uint8)
    images = normalize(pixels, mean=(0.5, 0.2), std=(0.25, 0.1))
    assert images.dtype == torch.float32
    expected = torch.tensor([[[[-2.0, 2.0, -1.2]], [[-2.0, 8.0, 0.0]]]])
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "levels", "values"),
    [
        (torch.uint8, [0, 51, 255], [0.0, 0.2, 1.0]),
        (torch.uint16, [0, 13107, 65535], [0.0, 0.2, 1.0]),
        (torch.float32, [-3.0, 0.2, 65535.0], [-3.0, 0.2, 65535.0]),
    ],
)
def test_normalize__full_scale_of_each_type(dtype, levels, values):
    pixels = torch.tensor(levels).to(dtype).view(1, 1, 1, 3)
    images = normalize(pixels, mean=(0.5,), std=(0.25,))
    assert images.dtype == torch.float32
    expected = (torch.tensor(values).view(1, 1, 1, 3) - 0.5) / 0.25
    torch.testing.assert_close(images, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_normalize__leaves_its_input_alone(dtype):
    pixels = torch.full((1, 3, 2, 2), 200).to(dtype)
    normalize(pixels, **IMAGENET)
    assert (pixels == 200).all()


@pytest.mark.parametrize(("num_means", "num_stds"), [(3, 5), (5, 1), (1, 5)])
def test_normalize__one_mean_and_deviation_per_channel(num_means, num_stds):
    wrong = num_means if num_stds == 5 else num_stds
    with pytest.raises(UserError, match=rf"per channel: got {wrong}, and the images have 5 "):
        normalize(torch.zeros(1, 5, 2, 2), num_means * [0.5], num_stds * [0.5])


@pytest.mark.parametrize("num_channels", [1, 3, 5])
def test_denormalize__gives_every_level_back(num_channels):
    levels = torch.arange(256, dtype=torch.uint8).view(16, 16).expand(2, num_channels, 16, 16)
    statistics = {
        "mean": [0.2 + 0.1 * channel for channel in range(num_channels)],
        "std": [0.3 - 0.05 * channel for channel in range(num_channels)],
    }
    assert denormalize(normalize(levels, **statistics), **statistics).equal(levels)


def test_denormalize__rounds_to_the_nearest_level_and_clips():
    images = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 99.7 / 255, 1.1]).view(1, 1, 1, 5)
    pixels = denormalize(images, mean=(0.0,), std=(1.0,))
    assert pixels.dtype == torch.uint8
    assert pixels.flatten().tolist() == [0, 0, 1, 100, 255]


def test_denormalize__any_mean_and_deviation():
    images = torch.tensor([-20.0, 30.0, 80.0, 130.0]).view(1, 1, 4)
    pixels = denormalize(images, mean=(0.2,), std=(0.01,))  # -20 is 0, 80 is 1
    assert pixels.flatten().tolist() == [0, 128, 255, 255]


def test_denormalize__a_single_image():
    assert denormalize(torch.zeros(3, 2, 2), **IMAGENET)[:, 0, 0].tolist() == [124, 116, 104]

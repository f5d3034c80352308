import math

import pytest
import torch
from torch import Tensor

from ssl_swin.probing.representation import linear_cka, rankme, spread


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (4, 4)])
def test_rankme__of_equal_directions_is_their_number(shape):
    features = torch.zeros(shape)
    for at in range(3):
        features[at, at] = 7.0
    assert rankme(features) == pytest.approx(3, rel=1e-4)


def test_rankme__by_hand():
    """Singular values 3 and 1: shares of 3/4 and 1/4."""
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert rankme(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("features", [torch.ones(8, 5), torch.zeros(8, 5)])
def test_rankme__and_spread_of_images_that_are_alike(features):
    assert rankme(features) == pytest.approx(1, abs=1e-4)
    assert spread(features) == pytest.approx(0, abs=1e-6)


def test_spread__of_features_in_all_directions_is_about_one():
    assert spread(noise(4000, 64)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("num_images", [50, 8])  # more and fewer than channels
def test_linear_cka__is_one_up_to_rotation_scale_and_shift_and_no_more(num_images):
    features = noise(num_images, 12)
    rotation = torch.linalg.qr(noise(12, 12, seed=1))[0]
    assert linear_cka(features, 3 * features @ rotation + 5) == pytest.approx(1, abs=1e-5)
    stretched = features * torch.logspace(0, 2, 12)
    assert linear_cka(features, stretched) < 0.9


def test_linear_cka__by_its_definition():
    """Of kernels: both ways of computing it."""
    for number in (50, 8):
        x, y = noise(number, 12).double(), noise(number, 5, seed=1).double()
        centre = torch.eye(number) - 1 / number
        kernels = [centre.double() @ (z @ z.T) @ centre.double() for z in (x, y)]
        expected = (kernels[0] * kernels[1]).sum() / (kernels[0].norm() * kernels[1].norm())
        assert linear_cka(x, y) == pytest.approx(float(expected), rel=1e-9)


def test_linear_cka__of_a_constant_is_nothing():
    assert linear_cka(torch.ones(6, 3), noise(6, 3)) == 0

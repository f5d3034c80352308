"""Targets that are normalised over patches, and how a target is chosen."""

import pytest
import torch

from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.targets import PatchTarget


def test_patch_target__by_hand():
    """One channel, patches of 2: (1, 2, 3, 4) has mean 2.5 and unbiased variance 5/3."""
    images = torch.tensor([[[[1.0, 2, 5, 5], [3, 4, 5, 5]]]])
    found = PatchTarget(2).of(images)
    deviation = (5 / 3 + 1e-6) ** 0.5
    expected = torch.tensor([[-1.5, -0.5], [0.5, 1.5]]) / deviation
    torch.testing.assert_close(found[0, 0, :, :2], expected)
    assert found[0, 0, :, 2:].equal(torch.zeros(2, 2))  # without contrast


def test_patch_target__statistics_are_over_pixels_and_channels_together():
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 3 + 1
    patches = PatchTarget(8).of(images).unflatten(3, (3, 8)).unflatten(2, (2, 8))
    assert patches.mean(dim=(1, 3, 5)).abs().max() < 1e-6
    torch.testing.assert_close(patches.var(dim=(1, 3, 5)), torch.ones(2, 2, 3))
    assert patches.mean(dim=(3, 5)).abs().max() > 1e-2  # a channel alone is not centred


def test_patch_target__goes_back_to_the_images():
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    target = PatchTarget(4)
    torch.testing.assert_close(target.to_image_space(target.of(images), images), images)


def test_objective__takes_the_target_and_says_so(tiny_encoder):
    model = SimMIM(tiny_encoder(), normalize_target_patch_px=8)
    images = torch.randn(2, 3, *model.encoder.img_size_px)
    assert model.target(images).equal(PatchTarget(8).of(images))
    assert model.describe().endswith(", target normalised over patches of 8 px")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalize_target_patch_px": 7}, "patch_px=7 does not divide an image of 64x64 px"),
        (
            {"normalize_target_patch_px": 8, "normalize_target_window_px": 5},
            "window_px=5 and normalize_target_patch_px=8 are two targets",
        ),
        ({"normalize_target_patch_px": 0}, "normalize_target_patch_px must be a whole number"),
    ],
)
def test_objective__refuses_targets_that_cannot_be(tiny_encoder, settings, message):
    with pytest.raises(UserError, match=message):
        SimMIM(tiny_encoder(), **settings)

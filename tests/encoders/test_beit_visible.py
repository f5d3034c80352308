"""The ViT that computes visible patches alone, against the one that computes all."""

import numpy as np
import pytest
import torch
from test_beit import images_for, vit
from torch import Tensor

from ssl_swin.encoders.beit import BeitEncoder
from ssl_swin.encoders.visible import VisibleCells
from ssl_swin.errors import UserError
from ssl_swin.masking import random_mask


def mask_for(encoder: BeitEncoder, *, shared: bool = False) -> Tensor:
    generator = np.random.default_rng(3)
    return random_mask(encoder.last_grid, 0.6, generator, batch_size=2, shared=shared)


def hidden_keys(encoder: BeitEncoder, images: Tensor, mask: Tensor) -> Tensor:
    """The dense encoder in which no token attends to a masked one, at its visible patches."""
    sequence = encoder._with_cls(encoder.embed(images))
    hidden = torch.cat([torch.zeros(len(mask), 1, dtype=torch.bool), mask.flatten(1)], dim=1)
    bias = encoder._shared_bias()
    bias = torch.where(hidden[:, None, None], -torch.inf, bias)
    for block in encoder.model.blocks:
        sequence = block(sequence, bias)
    tokens = encoder.model.norm(sequence)[:, 1:]
    return torch.stack([each[~one.flatten()] for each, one in zip(tokens, mask, strict=True)])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    "changes", [{}, {"img_size_px": (32, 96), "in_chans": 5}, {"fixed_positions": True}], ids=str
)
def test_encode_visible__equals_the_dense_encoder_with_masked_keys_hidden(changes, shared):
    encoder = vit(**changes)
    images, mask = images_for(encoder), mask_for(encoder, shared=shared)
    plan = encoder.visible_planner()(mask)
    assert len(plan.visible) == (1 if shared else 2)
    with torch.no_grad():
        found, expected = encoder.encode_visible(images, plan), hidden_keys(encoder, images, mask)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_encode_visible__masked_pixels_change_nothing():
    encoder = vit()
    images, mask = images_for(encoder), mask_for(encoder)
    pixels = mask.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    plan = encoder.visible_planner()(mask)
    with torch.no_grad():
        found = encoder.encode_visible(images, plan)
        assert encoder.encode_visible(images.where(~pixels, 9.0), plan).equal(found)
        assert not encoder.encode_visible(images.where(pixels, 9.0), plan).allclose(found)


@pytest.mark.parametrize("fixed_positions", [False, True])
def test_encode_visible__takes_bias_and_position_of_each_patchs_own_place(fixed_positions):
    """With all shown in another order, features come in that order."""
    encoder = vit(fixed_positions=fixed_positions)
    images = images_for(encoder)
    number = encoder.last_grid[0] * encoder.last_grid[1]
    order = torch.randperm(number, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        straight = encoder(images).flatten(2).transpose(1, 2)
        mixed = encoder.encode_visible(images, VisibleCells(order[None]))
    torch.testing.assert_close(mixed, straight[:, order], rtol=1e-4, atol=1e-5)


def test_encode_visible__gradients_reach_every_weight_with_and_without_checkpointing():
    gradients = []
    for grad_checkpointing in (False, True):
        encoder = vit(grad_checkpointing=grad_checkpointing).train()
        plan = encoder.visible_planner()(mask_for(encoder))
        encoder.encode_visible(images_for(encoder), plan).square().sum().backward()
        trained = [each for each in encoder.parameters() if each.requires_grad]
        assert all(each.grad is not None for each in trained)
        gradients.append(torch.cat([each.grad.flatten() for each in trained]))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_visible_planner__refuses_position_tables_of_each_block():
    with pytest.raises(UserError, match="whose blocks have position tables of their own"):
        vit(shared_position_bias=False).visible_planner()


def test_visible_planner__refuses_masks_that_do_not_fit():
    plan = vit().visible_planner()
    with pytest.raises(UserError, match="must show the same number of patches"):
        plan(torch.tensor([[[True, False]] * 2, [[False, False]] * 2]))
    with pytest.raises(UserError, match="cuts the encoder's last map of 4x4"):
        plan(torch.zeros(1, 3, 3, dtype=torch.bool))

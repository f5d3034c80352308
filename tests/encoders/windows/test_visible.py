"""The encoder of visible cells against timm's dense one, in double precision."""

import numpy as np
import pytest
import torch

from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask, random_mask

BIG = {"img_size_px": 128, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}  # 4x4 cells
both_versions = pytest.mark.parametrize("version", [1, 2])


def masks_for(encoder, *, batch_size=2, ratio=0.6, shared=False, grid=None, seed=0):
    grid = grid or encoder.windows.grid
    generator = np.random.default_rng(seed)
    return random_mask(grid, ratio, generator, batch_size=batch_size, shared=shared)


def images_for(encoder, batch_size=2):
    generator = torch.Generator().manual_seed(3)
    size = encoder.img_size_px
    return torch.randn(batch_size, encoder.in_chans, *size, generator=generator, dtype=torch.double)


def windows_of(values, window, shift):
    """Values (H, W) of every shifted window, (windows, area)."""
    rolled = values.roll((-shift[0], -shift[1]), (0, 1))
    rows, columns = rolled.shape
    tiled = rolled.view(rows // window[0], window[0], columns // window[1], window[1])
    return tiled.transpose(1, 2).reshape(-1, window[0] * window[1])


def dense_with_hidden_keys(model, image, shown):
    """timm's own forward, its shift masks replaced by ones that also hide masked keys."""
    for stage in model.layers:
        for block in stage.blocks:
            keys = windows_of(
                expand_mask(shown[None], block.input_resolution)[0],
                block.window_size,
                block.shift_size,
            )
            area = keys.shape[1]
            hidden = torch.zeros(len(keys), area, area, dtype=image.dtype)
            regions = block.get_attn_mask()
            if regions is not None:
                hidden += regions
            block.attn_mask = hidden.masked_fill(~keys[:, None], -1e9)
    return model.forward_features(image[None])[0].flatten(0, 1)[shown.flatten()]


def expected_features(twin, encoder, images, mask):
    grid = encoder.windows.grid
    shown = ~expand_mask(mask, grid)
    with torch.no_grad():
        return torch.stack(
            [dense_with_hidden_keys(twin, *pair) for pair in zip(images, shown, strict=True)]
        )


CASES = {
    "masks of their own": ({}, {}),
    "one mask": ({}, {"shared": True}),
    "few visible": ({}, {"ratio": 0.9}),
    "few masked": ({}, {"ratio": 0.1}),
    "mask patches of two tokens": ({}, {"grid": (2, 2), "ratio": 0.5}),
    "not square": ({"img_size_px": (64, 128)}, {}),
    "a map narrower than the window": ({"img_size_px": (32, 128)}, {"ratio": 0.5}),
    "three stages": ({"depths": (2, 2, 2), "num_heads": (1, 2, 2)}, {}),
    "odd window": ({"img_size_px": 192, "window_size": 3}, {}),
    "two channels": ({"in_chans": 2}, {}),
}


@both_versions
@pytest.mark.parametrize("case", CASES)
def test_encode_visible__equals_the_dense_encoder_with_masked_keys_hidden(
    tiny_encoder, timm_twin, version, case
):
    model, masking = CASES[case]
    encoder = tiny_encoder(version=version, **(BIG | model)).double()
    images, mask = images_for(encoder), masks_for(encoder, **masking)
    with torch.no_grad():
        features = encoder.encode_visible(images, encoder.windows.bin_visible(mask))
    expected = expected_features(timm_twin(encoder), encoder, images, mask)
    assert expected.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-10)


@both_versions
def test_encode_visible__with_nothing_masked_equals_the_dense_encoder(tiny_encoder, version):
    encoder = tiny_encoder(version=version, **BIG).double()
    images = images_for(encoder)
    mask = torch.zeros(2, *encoder.windows.grid, dtype=torch.bool)
    weights = torch.randn(2, encoder.num_features, 4, 4, dtype=torch.double)

    dense = encoder(images)
    visible = encoder.encode_visible(images, encoder.windows.bin_visible(mask))
    visible = visible.transpose(1, 2).view_as(dense)

    torch.testing.assert_close(visible, dense, rtol=0, atol=1e-11)
    parameters = list(encoder.parameters())
    expected = torch.autograd.grad((dense * weights).sum(), parameters)
    actual = torch.autograd.grad((visible * weights).sum(), parameters)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


@both_versions
def test_encode_visible__masked_pixels_change_nothing(tiny_encoder, version):
    encoder = tiny_encoder(version=version, **BIG).double()
    images, mask = images_for(encoder), masks_for(encoder)
    pixels = expand_mask(mask, encoder.img_size_px)[:, None]
    others = torch.where(pixels, torch.randn_like(images), images)
    packing = encoder.windows.bin_visible(mask)
    with torch.no_grad():
        first, second = (encoder.encode_visible(shown, packing) for shown in (images, others))
        different = encoder.encode_visible(torch.randn_like(images), packing)
    assert first.equal(second)
    assert not first.equal(different)


@both_versions
def test_encode_visible__the_order_of_visible_cells_changes_nothing(tiny_encoder, version):
    encoder = tiny_encoder(version=version, **BIG).double()
    images = images_for(encoder)
    packing = encoder.windows.bin_visible(masks_for(encoder))
    order = torch.randperm(packing.visible.shape[1])
    shuffled = packing._replace(visible=packing.visible[:, order])
    with torch.no_grad():
        straight = encoder.encode_visible(images, packing)
        mixed = encoder.encode_visible(images, shuffled)
    torch.testing.assert_close(mixed, straight[:, order], rtol=0, atol=1e-12)


def test_encode_visible__images_do_not_see_each_other(tiny_encoder):
    encoder = tiny_encoder(**BIG).double()
    images, mask = images_for(encoder, 3), masks_for(encoder, batch_size=3)
    with torch.no_grad():
        together = encoder.encode_visible(images, encoder.windows.bin_visible(mask))
        alone = [
            encoder.encode_visible(images[i : i + 1], encoder.windows.bin_visible(mask[i : i + 1]))
            for i in range(3)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


@both_versions
def test_encode_visible__checkpointing_changes_nothing(tiny_encoder, version):
    gradients = []
    for checkpointing in (False, True):
        encoder = tiny_encoder(
            version=version, grad_checkpointing=checkpointing, drop_path_rate=0.5, **BIG
        ).train()
        torch.manual_seed(1)
        packing = encoder.windows.bin_visible(masks_for(encoder))
        encoder.encode_visible(images_for(encoder).float(), packing).square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=0)


def test_pack__slots_are_few_and_their_number_has_few_values(tiny_encoder):
    encoder = tiny_encoder(img_size_px=192, window_size=6, depths=(2, 2, 2, 2))
    packings = [
        encoder.windows.bin_visible(masks_for(encoder, batch_size=32, seed=seed))
        for seed in range(8)
    ]
    tokens = 32 * 14 * 64
    slots = [packing.num_bins[0] * 36 for packing in packings]
    assert all(tokens <= count <= 1.05 * tokens for count in slots)
    assert len({packing.num_bins for packing in packings}) <= 3


def test_pack__one_pattern_if_all_masks_are_the_same(tiny_encoder):
    encoder = tiny_encoder(**BIG)
    assert len(encoder.windows.bin_visible(masks_for(encoder, shared=True)).visible) == 1
    assert len(encoder.windows.bin_visible(masks_for(encoder)).visible) == 2


def test_pack__a_mask_cuts_cells(tiny_encoder):
    with pytest.raises(
        UserError, match=r"a mask of 8x8 patches cuts the encoder's last map of 4x4"
    ):
        tiny_encoder(**BIG).windows.bin_visible(torch.zeros(1, 8, 8, dtype=torch.bool))


@pytest.mark.parametrize("shown", [[1, 2], [0, 0]])
def test_pack__every_image_shows_as_many_cells(tiny_encoder, shown):
    mask = torch.ones(2, 16, dtype=torch.bool)
    for image, count in enumerate(shown):
        mask[image, :count] = False
    with pytest.raises(UserError, match=f"got {shown[0]} to {shown[1]}"):
        tiny_encoder(**BIG).windows.bin_visible(mask.view(2, 4, 4))

"""A Swin with positions at its input: against one without, and in and out of files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from round_trips import (
    check_goes_to_timm_and_back,
    check_is_rebuilt_from_what_a_file_says,
    check_takes_the_originals_names,
    disturbed,
    images_for,
)

from ssl_swin.encoders.positions import sine_cosine
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.encoders.swin import SwinEncoder, swin
from ssl_swin.encoders.swin_ape import POSITIONS, SwinApeEncoder, swin_ape
from ssl_swin.errors import UserError
from ssl_swin.masking import random_mask
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM

TINY: dict[str, Any] = {
    "img_size_px": 64,
    "window_size": 4,
    "embed_dim": 8,
    "depths": (2, 2, 2),
    "num_heads": (1, 2, 4),
}


def ape(**changes: Any) -> SwinApeEncoder:
    return disturbed(swin_ape, **(TINY | changes))


def without(encoder: SwinApeEncoder) -> SwinEncoder:
    """The plain Swin of the same weights."""
    plain = swin(version=1, **TINY).eval()
    state = encoder.model.state_dict()
    del state[POSITIONS]
    plain.model.load_state_dict(state)
    return plain


@torch.no_grad()
def test_encode__is_a_plain_swins_of_tokens_with_positions() -> None:
    encoder = ape()
    plain, images = without(encoder), images_for(encoder)
    tokens = encoder.embed(images)
    assert tokens.equal(plain.embed(images))
    placed = tokens + encoder.model.absolute_pos_embed.view(1, 16, 16, 8)
    assert encoder(images).equal(plain.encode(placed))
    assert encoder(images).equal(encoder.stages(images)[-1])
    assert not encoder(images).allclose(plain(images))
    pooled = encoder.pool(encoder(images))
    torch.testing.assert_close(encoder.model(images), pooled, rtol=0, atol=1e-5)


def test_positions__are_fixed_sines_and_cosines() -> None:
    encoder = swin_ape(**TINY, in_chans=2)
    positions = encoder.model.absolute_pos_embed
    assert positions[0].equal(sine_cosine(16, 16, 8)) and not positions.requires_grad
    model = SimMIM(encoder)
    mask = torch.eye(4, dtype=torch.bool).expand(2, 4, 4)
    model.reconstruct(images_for(encoder), mask).loss.backward()
    assert positions.grad is None
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_simmim__mask_tokens_have_positions() -> None:
    """All masked but one cell: what is predicted far from it differs by place alone."""
    torch.manual_seed(0)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = False
    images = torch.zeros(1, 3, 64, 64)
    spread = {}
    for kind, make in (("ape", swin_ape), ("plain", lambda **given: swin(version=1, **given))):
        model = SimMIM(make(**TINY | {"depths": (1, 1, 1)}).eval())
        with torch.no_grad():
            features = model.reconstruct(images, mask).features[0, :, 2:, 2:].flatten(1)
        spread[kind] = features.std(dim=1).max().item()
    assert spread["ape"] > 0.05 and spread["plain"] < 0.01


@pytest.mark.parametrize("shared", [False, True])
@torch.no_grad()
def test_encode_visible__gives_each_patch_the_position_of_its_place(shared: bool) -> None:
    encoder = ape()
    images = images_for(encoder)
    mask = random_mask((4, 4), 0.5, np.random.default_rng(0), batch_size=2, shared=shared)
    plan = encoder.visible_planner()(mask)
    found = encoder.encode_visible(images, plan)
    # The same pixels with positions painted in, for which the plain Swin's embedding is replaced.
    plain = without(encoder)
    placed = encoder.with_positions(encoder.embed(images)).flatten(1, 2)
    embed = plain.model.patch_embed
    embed.forward = lambda _, chosen: placed.gather(1, chosen[..., None].expand(-1, -1, 8))
    torch.testing.assert_close(found, plain.encode_visible(images, plan))
    everything = torch.zeros(2, 4, 4, dtype=torch.bool)
    whole = encoder.encode_visible(images, encoder.visible_planner()(everything))
    expected = encoder(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-5)


def test_sparse__learns(tmp_path: Path) -> None:
    model = SparseSimMIM(ape(), mask_patch_size_px=16)
    mask = random_mask((4, 4), 0.5, np.random.default_rng(0), batch_size=2)
    model.reconstruct(images_for(model.encoder), mask).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def test_any_size__positions_are_resized() -> None:
    encoder = ape()
    plain, images = without(encoder), torch.randn(1, 3, 40, 48)
    grid = encoder.model.absolute_pos_embed.view(1, 16, 16, 8).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, (10, 12), mode="bicubic", antialias=True).permute(0, 2, 3, 1)
    tokens = plain.embed(images, any_size=True)
    expected = plain.encode(tokens + resized, any_size=True)
    torch.testing.assert_close(encoder.forward_any_size(images), expected)


def test_resize_encoder__resizes_positions_with_the_image() -> None:
    encoder = ape()
    resized = resize_encoder(encoder, img_size_px=128)
    assert resized.model.absolute_pos_embed.shape == (1, 32 * 32, 8)
    grid = encoder.model.absolute_pos_embed.view(1, 16, 16, 8).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (32, 32), mode="bicubic", antialias=True)
    found = resized.model.absolute_pos_embed.view(1, 32, 32, 8).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected)
    wide = ape(img_size_px=(64, 128))
    assert resize_encoder(wide, img_size_px=128).model.absolute_pos_embed.shape == (1, 32 * 32, 8)


def test_backbone__goes_to_timm_and_back(tmp_path: Path) -> None:
    check_goes_to_timm_and_back(ape(in_chans=2), tmp_path, "ssl_swin.encoders.swin_ape")


def test_formats__the_originals_names_and_what_has_no_place(tmp_path: Path) -> None:
    names = check_takes_the_originals_names(ape(), tmp_path)
    assert names >= {POSITIONS, "layers.0.downsample.norm.weight"}


def test_of_tensors__refuses_another_size_or_window() -> None:
    state = ape().model.state_dict()
    assert SwinApeEncoder.of_tensors(state, None, None).img_size_px == (64, 64)
    assert SwinApeEncoder.of_tensors(state, (32, 128), 4).img_size_px == (32, 128)
    with pytest.raises(UserError, match="has 256 patches, and an image of 96x96 px has 24x24"):
        SwinApeEncoder.of_tensors(state, (96, 96), None)
    with pytest.raises(UserError, match="window_size=7, and its tables are for 4 tokens"):
        SwinApeEncoder.of_tensors(state, None, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": (1, 2, 3)}, "stage 3 is 32 wide, which 3 heads do not divide"),
        ({"img_size_px": 72}, "side of 72 px|72 px"),
        ({"embed_dim": 6, "num_heads": (1, 2, 3)}, "embed_dim must be a multiple of 4.* got 6"),
    ],
)
def test_swin_ape__refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        swin_ape(**(TINY | changes))


def test_build_encoder__rebuilds_from_what_a_file_says() -> None:
    check_is_rebuilt_from_what_a_file_says(ape(in_chans=1, img_size_px=(64, 128)))

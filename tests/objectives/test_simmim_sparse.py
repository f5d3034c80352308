import numpy as np
import pytest
import torch

from ssl_swin.encoders.beit import BeitEncoder, beit
from ssl_swin.encoders.positions import sine_cosine
from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask, random_mask
from ssl_swin.objectives.simmim import masked_l1
from ssl_swin.objectives.simmim_sparse import SparseSimMIM
from ssl_swin.optim.param_groups import weight_decay_groups

BIG = {"img_size_px": 128, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}  # 4x4 cells
both_versions = pytest.mark.parametrize("version", [1, 2])


@pytest.fixture
def sparse(tiny_encoder):
    def build(*, window_px=None, decoder_depth=1, **changes):
        encoder = tiny_encoder(**(BIG | changes))
        torch.manual_seed(0)
        return SparseSimMIM(
            encoder, decoder_depth=decoder_depth, normalize_target_window_px=window_px
        )

    return build


def batch_for(model, batch_size=2, *, shared=False):
    generator = np.random.default_rng(5)
    mask = random_mask((4, 4), 0.6, generator, batch_size=batch_size, shared=shared)
    size = model.encoder.img_size_px
    images = torch.randn(batch_size, 3, *size, generator=torch.Generator().manual_seed(4))
    return images, mask


@pytest.mark.parametrize("window_px", [None, 15])
@pytest.mark.parametrize("shared", [False, True])
def test_forward__loss_is_that_of_its_prediction(sparse, window_px, shared):
    model = sparse(window_px=window_px)
    images, mask = batch_for(model, shared=shared)
    output = model.reconstruct(images, mask)
    expected = masked_l1(output.prediction, model.target(images), mask)
    torch.testing.assert_close(output.loss, expected)
    shown = ~expand_mask(mask, (128, 128))[:, None].expand_as(images)
    assert output.prediction[shown].equal(model.target(images)[shown])
    assert not torch.allclose(output.prediction[~shown], model.target(images)[~shown], atol=0.1)


def test_forward__features_lie_where_their_cells_do(sparse):
    model = sparse()
    images, mask = batch_for(model)
    packing = model.encoder.windows.bin_visible(mask)
    features = model.encoder.encode_visible(images, packing)
    full = model.reconstruct(images, mask, packing).features
    assert full.shape == (2, 64, 4, 4)
    for image in range(2):
        shown = ~mask[image]
        assert full[image][:, ~shown].count_nonzero() == 0
        torch.testing.assert_close(full[image][:, shown].T, features[image])


def test_forward__a_packing_made_before_gives_the_same(sparse):
    model = sparse()
    images, mask = batch_for(model)
    packing = model.encoder.windows.bin_visible(mask)
    assert model.reconstruct(images, mask).loss.equal(model.reconstruct(images, mask, packing).loss)


def test_forward__a_masked_pixel_reaches_the_loss_as_a_target_only(sparse):
    model = sparse()
    images, mask = batch_for(model)
    hidden = expand_mask(mask, (128, 128))[:, None]
    changed = torch.where(hidden, images + 1, images)
    before, after = model.reconstruct(images, mask), model.reconstruct(changed, mask)
    difference = (after.prediction - before.prediction) * hidden
    assert difference.count_nonzero() == 0
    assert not torch.isclose(before.loss, after.loss)


@both_versions
@pytest.mark.parametrize("shared", [False, True])
def test_backward__every_weight_learns(sparse, version, shared):
    model = sparse(version=version)
    images, mask = batch_for(model, shared=shared)
    model.reconstruct(images, mask).loss.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_backward__each_visible_cell_of_an_image_matters_to_its_masked_ones(sparse):
    model = sparse()
    images, mask = batch_for(model)
    images.requires_grad_()
    features = model.encoder.encode_visible(images, model.encoder.windows.bin_visible(mask))
    visible = model.encoder.windows.bin_visible(mask).visible
    masked = torch.stack([row.flatten().nonzero()[:, 0] for row in mask])
    painted = model.decoder(features, visible, masked)
    (gradient,) = torch.autograd.grad(painted[0].square().sum(), images)
    cells = gradient.view(2, 3, 4, 32, 4, 32).abs().amax((1, 3, 5))
    assert (cells[0] > 0).equal(~mask[0])
    assert cells[1].count_nonzero() == 0


@both_versions
def test_forward__bf16_is_near_float32(sparse, version):
    model = sparse(version=version)
    images, mask = batch_for(model)
    with torch.no_grad():
        exact = model.reconstruct(images, mask)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.reconstruct(images, mask)
    assert rounded.loss.dtype == torch.float32
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=5e-3, atol=0)
    torch.testing.assert_close(rounded.features.float(), exact.features, rtol=0.05, atol=0.2)


def test_fixed_positions__tell_the_decoder_where_cells_lie_and_are_not_trained(tiny_encoder):
    model = SparseSimMIM(tiny_encoder(**BIG), decoder_fixed_positions=True)
    positions = model.decoder.pos_embed
    assert positions[0].equal(sine_cosine(4, 4, positions.shape[-1]))
    images, mask = batch_for(model)
    model.reconstruct(images, mask).loss.backward()
    assert positions.grad is None
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    learnt = SparseSimMIM(tiny_encoder(**BIG)).decoder.pos_embed
    assert learnt.requires_grad and learnt.shape == positions.shape


def test_weight_decay__spares_tokens_and_places(sparse):
    model = sparse()
    groups = weight_decay_groups(model, lr=1.0, weight_decay=0.05, policy="intended")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    spared = {
        names[id(p)] for group in groups if not group["weight_decay"] for p in group["params"]
    }
    assert {"decoder.mask_token", "decoder.pos_embed"} <= spared
    assert "decoder.embed.weight" not in spared


def test_init__default_width_is_half_the_encoders_in_whole_heads(tiny_encoder):
    assert SparseSimMIM(tiny_encoder(**BIG), decoder_depth=1).decoder.head.in_features == 32
    wide = SparseSimMIM(tiny_encoder(**BIG), decoder_depth=2, decoder_dim=96)
    assert (wide.decoder.head.in_features, len(wide.decoder.blocks)) == (96, 2)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ({"decoder_depth": 0}, "decoder_depth must be a whole number of at least 1, got 0"),
        ({"decoder_depth": 1.5}, "decoder_depth must be a whole number of at least 1, got 1.5"),
        ({"decoder_dim": 40}, "decoder_dim must be a multiple of 32, got 40"),
        ({"decoder_dim": 0}, "decoder_dim must be a whole number of at least 1 or null, got 0"),
        ({"decoder_dim": -32}, "decoder_dim must be a whole number of at least 1"),
    ],
)
def test_init__a_decoder_that_cannot_be_built(tiny_encoder, decoder, message):
    with pytest.raises(UserError, match=message):
        SparseSimMIM(tiny_encoder(**BIG), **decoder)


def test_reconstruct__a_vit_leaves_masked_patches_out_too():
    torch.manual_seed(0)
    model = SparseSimMIM(beit(img_size_px=64, patch_size_px=8, embed_dim=32, depth=2, num_heads=2))
    assert model.mask_grid == (4, 4)  # mask patches of 16 px, of four patches each
    mask = random_mask((4, 4), 0.6, np.random.default_rng(5), batch_size=2)
    images = torch.randn(2, 3, 64, 64)
    output = model.reconstruct(images, mask, model.make_collate().keywords["plan"](mask))
    torch.testing.assert_close(
        output.loss, masked_l1(output.prediction, model.target(images), mask)
    )
    output.loss.backward()
    trained = [each for each in model.parameters() if each.requires_grad]
    assert all(each.grad is not None for each in trained)


def test_init__an_encoder_that_cannot_leave_patches_out(tiny_encoder, monkeypatch):
    encoder = tiny_encoder(**BIG)
    monkeypatch.setattr("ssl_swin.objectives.simmim_sparse.VisibleEncoder", BeitEncoder)
    with pytest.raises(UserError, match="needs an encoder that can leave out masked patches, got"):
        SparseSimMIM(encoder)


def test_mask_patch__must_be_whole_cells(sparse):
    encoder = sparse().encoder
    assert SparseSimMIM(encoder, mask_patch_size_px=64).mask_grid == (2, 2)
    with pytest.raises(
        UserError, match=r"mask_patch_size_px=16 does not fit .*: 32, 64, \.\.\. px"
    ):
        SparseSimMIM(encoder, mask_patch_size_px=16)

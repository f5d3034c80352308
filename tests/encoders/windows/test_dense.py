import pytest
import torch

from ssl_swin.encoders.windows.dense import dense_layouts
from ssl_swin.encoders.windows.layout import MovedWindows, SameOrder, WholeWindows
from ssl_swin.errors import UserError

CPU = torch.device("cpu")
both_versions = pytest.mark.parametrize("version", [1, 2])


def test_dense_layouts__order_and_shift_by_hand(tiny_encoder):
    encoder = tiny_encoder(img_size_px=16, window_size=2, depths=(2,), num_heads=(1,))
    sizes, orders, stages = dense_layouts(encoder.model, (4, 4), CPU)
    # A map of 4x4 in windows of 2x2; shifted by 1, the first window starts at raster index 5.
    order = orders[0].index
    assert sizes == [(4, 4)]
    assert order.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    plain, shifted = stages[0].blocks
    assert plain == WholeWindows(4)
    assert order[shifted.order.index].tolist()[:8] == [5, 6, 9, 10, 7, 4, 11, 8]
    assert shifted.order.inverse[shifted.order.index].tolist() == list(range(16))


def test_dense_layouts__merging_takes_a_square_down_then_across(tiny_encoder):
    encoder = tiny_encoder(img_size_px=16, window_size=2, depths=(1, 1), num_heads=(1, 1))
    _, orders, stages = dense_layouts(encoder.model, (4, 4), CPU)
    assert stages[0].merging == SameOrder()
    assert orders[0].index[stages[1].merging.index].view(4, 4).tolist() == [
        [0, 4, 1, 5],
        [2, 6, 3, 7],
        [8, 12, 9, 13],
        [10, 14, 11, 15],
    ]


def test_dense_layouts__padding_and_shift_by_hand(tiny_encoder):
    encoder = tiny_encoder(img_size_px=16, window_size=2, depths=(2, 1), num_heads=(1, 1))
    sizes, orders, stages = dense_layouts(encoder.model, (3, 3), CPU, any_size=True)
    # A map of 3x3 in windows of 2x2 is filled up to 4x4; index 9 is a token of zeros.
    assert sizes == [(3, 3), (2, 2)]
    assert orders[0].index.tolist() == list(range(9))
    plain, shifted = stages[0].blocks
    assert plain.order.index.view(4, 4).tolist() == [
        [0, 1, 3, 4],
        [2, 9, 5, 9],
        [6, 7, 9, 9],
        [8, 9, 9, 9],
    ]
    assert not plain.attn_bias.any()
    assert shifted.order.index.view(4, 4).tolist() == [
        [4, 5, 7, 8],
        [9, 3, 9, 6],
        [9, 9, 1, 2],
        [9, 9, 9, 0],
    ]
    apart = [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 2, 3]]  # regions of each window
    regions = torch.tensor(apart)
    expected = -100.0 * (regions[:, :, None] != regions[:, None, :])
    assert shifted.attn_bias[:, 0].equal(expected)
    assert stages[1].merging.index.view(4, 4).tolist() == [
        [0, 3, 1, 4],
        [2, 5, 9, 9],
        [6, 9, 7, 9],
        [8, 9, 9, 9],
    ]


@both_versions
@pytest.mark.parametrize("size", [(64, 64), (64, 128), (32, 128)])
def test_dense_layouts__masks_are_timms(tiny_encoder, version, size):
    encoder = tiny_encoder(version=version, img_size_px=size, depths=(2, 2), num_heads=(1, 2))
    _, _, stages = dense_layouts(encoder.model, (size[0] // 4, size[1] // 4), CPU)
    shifted = 0
    for stage, layout in zip(encoder.model.layers, stages, strict=True):
        for block, windows in zip(stage.blocks, layout.blocks, strict=True):
            if block.attn_mask is None:
                assert isinstance(windows, WholeWindows)
            else:
                assert windows.attn_bias[:, 0].equal(block.attn_mask)
                shifted += 1
    assert shifted > 0


@both_versions
def test_dense_layouts__sizes_that_tile_move_no_more_than_the_own_size_does(tiny_encoder, version):
    encoder = tiny_encoder(version=version, depths=(2, 2), num_heads=(1, 2))
    own = dense_layouts(encoder.model, (16, 16), CPU)
    free = dense_layouts(encoder.model, (16, 16), CPU, any_size=True)
    for ours, theirs in zip(own.stages, free.stages, strict=True):
        assert [type(block) for block in ours.blocks] == [WholeWindows, MovedWindows]
        assert [type(block) for block in theirs.blocks] == [WholeWindows, MovedWindows]
        assert ours.blocks[1].order.index.equal(theirs.blocks[1].order.index)
        assert ours.blocks[1].attn_bias.equal(theirs.blocks[1].attn_bias)


@both_versions
@pytest.mark.parametrize("size", [(64, 64), (64, 128), (32, 128)])
def test_encode__equals_timm_with_gradients(tiny_encoder, timm_twin, version, size):
    encoder = tiny_encoder(version=version, img_size_px=size, depths=(2, 2, 2), num_heads=(1, 2, 4))
    encoder.double()
    twin = timm_twin(encoder)
    rows, columns = size[0] // 4, size[1] // 4
    tokens = torch.randn(2, rows, columns, 8, dtype=torch.double, requires_grad=True)

    theirs = twin.norm(twin.layers(tokens)).permute(0, 3, 1, 2)
    ours = encoder.encode(tokens)

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    weights = torch.randn_like(theirs)
    gradients = [
        torch.autograd.grad(
            (output * weights).sum(), [tokens, *model.layers.parameters(), *model.norm.parameters()]
        )
        for model, output in ((encoder.model, ours), (twin, theirs))
    ]
    for ours_grad, their_grad in zip(*gradients, strict=True):
        torch.testing.assert_close(ours_grad, their_grad, rtol=1e-9, atol=1e-10)


@both_versions
def test_timms_own_forward__is_what_it_was(tiny_encoder, timm_twin, version):
    encoder = tiny_encoder(version=version).double()
    twin = timm_twin(encoder)
    images = torch.randn(2, 3, 64, 64, dtype=torch.double)
    with torch.no_grad():
        for ours, theirs in (
            (encoder.model(images), twin(images)),
            (encoder.model.forward_features(images), twin.forward_features(images)),
            *zip(
                encoder.model.forward_intermediates(images, intermediates_only=True),
                twin.forward_intermediates(images, intermediates_only=True),
                strict=True,
            ),
        ):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert theirs.std() > 0.1


def test_encode__tokens_of_another_size(tiny_encoder):
    with pytest.raises(UserError, match="takes 16x16 patch tokens, got 8x16"):
        tiny_encoder().encode(torch.randn(1, 8, 16, 8))

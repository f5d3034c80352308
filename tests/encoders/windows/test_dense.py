import pytest
import torch

from ssl_swin.encoders.windows.blocks import run_stages, swin_block
from ssl_swin.encoders.windows.dense import dense_layouts

CPU = torch.device("cpu")
both_versions = pytest.mark.parametrize("version", [1, 2])


def test_dense_layouts__order_and_shift_by_hand(tiny_encoder):
    encoder = tiny_encoder(img_size_px=16, window_size=2, depths=(2,), num_heads=(1,))
    orders, _, layouts = dense_layouts(encoder.model, CPU)
    # A map of 4x4 in windows of 2x2; shifted by 1, the first window starts at raster index 5.
    assert orders[0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    plain, shifted = layouts[0].blocks
    assert plain.take is None
    assert orders[0][shifted.take].tolist()[:8] == [5, 6, 9, 10, 7, 4, 11, 8]
    assert shifted.put[shifted.take].tolist() == list(range(16))


def test_dense_layouts__merging_takes_a_square_down_then_across(tiny_encoder):
    encoder = tiny_encoder(img_size_px=16, window_size=2, depths=(1, 1), num_heads=(1, 1))
    orders, _, layouts = dense_layouts(encoder.model, CPU)
    assert orders[0][layouts[1].merge].view(4, 4).tolist() == [
        [0, 4, 1, 5],
        [2, 6, 3, 7],
        [8, 12, 9, 13],
        [10, 14, 11, 15],
    ]


@both_versions
@pytest.mark.parametrize("size", [(64, 64), (64, 128), (32, 128)])
def test_run_stages__equals_timm_with_gradients(tiny_encoder, version, size):
    encoder = tiny_encoder(
        version=version, img_size_px=size, depths=(2, 2, 2)[:3], num_heads=(1, 2, 4)
    )
    model = encoder.model.double()
    rows, columns = size[0] // 4, size[1] // 4
    tokens = torch.randn(2, rows, columns, 8, dtype=torch.double, requires_grad=True)
    orders, inverses, layouts = dense_layouts(model, CPU)

    theirs = model.layers(tokens).flatten(1, 2)
    *_, ours = run_stages(model.layers, tokens.flatten(1, 2)[:, orders[0]], layouts, swin_block)
    ours = ours[:, inverses[-1]]

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    inputs = [tokens, *model.layers.parameters()]
    weights = torch.randn_like(theirs)
    expected = torch.autograd.grad((theirs * weights).sum(), inputs)
    for ours_grad, their_grad in zip(
        torch.autograd.grad((ours * weights).sum(), inputs), expected, strict=True
    ):
        torch.testing.assert_close(ours_grad, their_grad, rtol=1e-9, atol=1e-10)


@both_versions
def test_run_stages__checkpointing_changes_nothing(tiny_encoder, version):
    gradients = []
    for checkpointing in (False, True):
        encoder = tiny_encoder(
            version=version, grad_checkpointing=checkpointing, drop_path_rate=0.5
        )
        encoder.train()
        torch.manual_seed(1)
        encoder(torch.randn(3, 3, 64, 64)).square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=0)


def test_run_stages__dropped_paths_keep_the_mean(tiny_encoder):
    encoder = tiny_encoder(
        img_size_px=16, window_size=4, depths=(1,), num_heads=(1,), drop_path_rate=0.0
    )
    block = encoder.model.layers[0].blocks[0]
    tokens = torch.randn(1, 16, 8)
    _, _, (layout,) = dense_layouts(encoder.model, CPU)
    kept = torch.full((1, 1, 1), 2.0)
    both = swin_block(block, tokens, layout.blocks[0], None, None)
    none = swin_block(block, tokens, layout.blocks[0], 0 * kept, 0 * kept)
    attention_twice = swin_block(block, tokens, layout.blocks[0], kept, 0 * kept)
    attention_once = swin_block(block, tokens, layout.blocks[0], None, 0 * kept)
    assert none.equal(tokens)
    torch.testing.assert_close(attention_twice - tokens, 2 * (attention_once - tokens))
    assert not torch.allclose(both, attention_once)


def test_drop_path__whole_images_are_dropped_and_the_rest_scaled(tiny_encoder):
    encoder = tiny_encoder(
        img_size_px=16, window_size=4, depths=(2,), num_heads=(1,), drop_path_rate=0.75
    )
    encoder.train()
    last = encoder.model.layers[0].blocks[1]  # the rate rises to its full value in the last block
    torch.nn.init.zeros_(last.mlp.fc2.weight)
    torch.nn.init.zeros_(last.mlp.fc2.bias)
    torch.nn.init.zeros_(encoder.model.layers[0].blocks[0].attn.proj.weight)
    seen = set()
    _, _, layouts = dense_layouts(encoder.model, CPU)
    tokens = torch.randn(1, 16, 8).expand(64, -1, -1)
    branch = swin_block(last, tokens, layouts[0].blocks[1], None, None) - tokens
    (after,) = run_stages(encoder.model.layers, tokens, layouts, _only_last(last))
    for added, whole in zip(after - tokens, branch, strict=True):
        seen.add(round(float((added / whole).detach().median()), 3))
    assert seen == {0.0, 4.0}


def _only_last(last):
    def run(block, tokens, *rest):
        return swin_block(block, tokens, *rest) if block is last else tokens

    return run

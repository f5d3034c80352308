"""Normed maps of any size. The rule for one encoder's maps is tested in `test_swin_any_size.py`."""

import pytest
import torch
import torch.nn.functional as F
from test_swin_any_size import GOLDEN_SIZES, golden, original  # noqa: F401

from ssl_swin.encoders.beit import beit
from ssl_swin.encoders.convnext import convnext
from ssl_swin.encoders.dense_encoder import DenseEncoder, batch_of
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.encoders.resnet import resnet
from ssl_swin.encoders.swin_mlp import swin_mlp
from ssl_swin.errors import UserError

both_versions = pytest.mark.parametrize("version", [1, 2])


def original_with_norms(golden):  # noqa: F811
    encoder, norms = original(golden)
    dense = DenseEncoder(encoder)
    for ours, theirs in zip(dense.norms, norms, strict=True):
        ours.load_state_dict(theirs)
    return dense


@pytest.mark.parametrize("size", GOLDEN_SIZES)
def test_maps__are_the_originals(golden, size):  # noqa: F811
    dense, arrays = original_with_norms(golden), golden[2]
    with torch.no_grad():
        maps = dense(arrays[f"{size}.image"].float())
    assert len(maps) == 4
    for stage, actual in enumerate(maps):
        expected = arrays[f"{size}.map{stage}"]
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_maps__have_the_originals_gradients(golden, is_checkpointed):  # noqa: F811
    facts, _, arrays = golden
    dense = original_with_norms(golden)
    dense.encoder.model.set_grad_checkpointing(is_checkpointed)
    maps = dense(arrays["230x317.image"].float())
    loss = sum((m * torch.cos(0.1 * torch.arange(m.numel())).view_as(m)).mean() for m in maps)
    assert loss.item() == pytest.approx(facts["loss_230x317"], abs=1e-6)
    loss.backward()
    expected = facts["gradient_norms_230x317"]
    for stage, norm in enumerate(dense.norms):
        for part in ("weight", "bias"):
            actual = getattr(norm, part).grad.norm().item()
            assert actual == pytest.approx(expected[f"norm{stage}.{part}"], rel=1e-4)
    untrained = {n for n, p in dense.encoder.model.named_parameters() if p.grad is None}
    assert untrained == {"norm.weight", "norm.bias"}
    assert not dense.encoder.model.norm.weight.requires_grad


@both_versions
@pytest.mark.parametrize("size", [(1, 1), (64, 64), (45, 70)])
def test_maps__are_normed_over_channels_with_sides_rounded_up(tiny_encoder, version, size):
    dense = DenseEncoder(tiny_encoder(version=version, img_size_px=128))
    with torch.no_grad():
        maps = dense(torch.randn(2, 3, *size))
    sides = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
    assert [tuple(each.shape) for each in maps] == [
        (2, width, *side) for width, side in zip((8, 16, 32, 64), sides, strict=True)
    ]
    for each in maps:
        torch.testing.assert_close(each.mean(1), torch.zeros_like(each[:, 0]), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            each.var(1, unbiased=False), torch.ones_like(each[:, 0]), rtol=0, atol=0.05
        )


@pytest.mark.parametrize(
    "encoder",
    [
        lambda: resnet(img_size_px=64, depths=(1, 1, 1, 1), block="basic", channels=(8, 8, 16, 16)),
        lambda: convnext(version=1, img_size_px=64, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)),
    ],
    ids=["ResNet", "ConvNeXt"],
)
@pytest.mark.parametrize("size", [(64, 96), (33, 41), (5, 3)])
def test_maps__of_convolutions(encoder, size):
    dense = DenseEncoder(encoder().eval())
    maps = dense(torch.randn(1, 3, *size))
    rows = [each.shape[-2] for each in maps]
    assert rows[0] >= -(-size[0] // 4) and rows[-1] == -(-size[0] // 32)
    assert rows == [-(-rows[0] // 2**stage) for stage in range(4)]
    sum(each.square().mean() for each in maps).backward()
    trained = [p for p in dense.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)  # or DDP would wait for ever


def test_maps__of_the_encoders_own_size_have_the_stages_of_pretraining(tiny_encoder):
    encoder = tiny_encoder(img_size_px=128, depths=(2, 2), num_heads=(1, 2))
    dense = DenseEncoder(encoder)
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        first = encoder.stages(images)[0].permute(0, 2, 3, 1)
        expected = F.layer_norm(first, (8,)).permute(0, 3, 1, 2)
        torch.testing.assert_close(dense(images)[0], expected)


def test_batch_of__fills_up_with_zeros(golden):  # noqa: F811
    small, large = torch.ones(2, 3, 5), 2 * torch.ones(2, 4, 2)
    batch = batch_of([small, large])
    assert batch.shape == (2, 2, 4, 5)
    assert batch[0, :, :3].eq(1).all() and batch[0, :, 3:].eq(0).all()
    assert batch[1, :, :, :2].eq(2).all() and batch[1, :, :, 2:].eq(0).all()
    dense, image = original_with_norms(golden), golden[2]["112x96.image"][0].float()
    with torch.no_grad():
        together = dense(batch_of([image, torch.zeros(3, 160, 128)]))
        alone = dense(F.pad(image, (0, 32, 0, 48))[None])
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours[:1], theirs, rtol=0, atol=1e-5)


def test_batch_of__refuses_what_is_no_batch():
    with pytest.raises(UserError, match=r"the same channels, got \(3, 4, 4\), \(1, 4, 4\)"):
        batch_of([torch.zeros(3, 4, 4), torch.zeros(1, 4, 4)])
    with pytest.raises(UserError, match="the same channels, got none"):
        batch_of([])


def test_dense_encoder__wants_one_window_in_all_stages(tiny_encoder):
    encoder = tiny_encoder()  # 64 px: the last maps are of 4 and 2 tokens, its windows of 4
    with pytest.raises(UserError, match=r"window_size=4 model.img_size_px=128"):
        DenseEncoder(encoder)
    DenseEncoder(resize_encoder(encoder, img_size_px=128, window_size=4))


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (lambda: beit(img_size_px=32, patch_size_px=16, embed_dim=8, depth=1, num_heads=1), "ViT"),
        (
            lambda: swin_mlp(
                img_size_px=64, window_size=4, embed_dim=8, depths=(1,), num_heads=(1,)
            ),
            "Swin-MLP",
        ),
        (lambda: torch.nn.Linear(1, 1), "encoder must be an Encoder"),
    ],
)
def test_dense_encoder__refuses_what_has_one_size(encoder, words):
    with pytest.raises(UserError, match=words):
        DenseEncoder(encoder())


def test_dense_encoder__refuses_images_of_other_channels(tiny_encoder):
    dense = DenseEncoder(tiny_encoder(img_size_px=128))
    with pytest.raises(UserError, match=r"images of 3 channels and any size, got \(1, 20, 20\)"):
        dense(torch.zeros(1, 1, 20, 20))

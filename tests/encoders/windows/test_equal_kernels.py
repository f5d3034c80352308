"""All choices of kernels are equal to rounding, values and gradients, and each is really taken."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_kernels import PLAIN
from plain_views import plain_views
from test_devices import on_a_fake_gpu
from torch.nn.attention import flex_attention

from ssl_swin.encoders.kernels import Kernels, use_kernels
from ssl_swin.encoders.windows import attention
from ssl_swin.encoders.windows.attention import WindowAttention
from ssl_swin.encoders.windows.blocks import RecomputingMlp
from ssl_swin.encoders.windows.layout import WholeWindows
from ssl_swin.masking import random_mask
from ssl_swin.objectives.moby import MoBY
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM

SIZES: dict[str, Any] = {"img_size_px": (64, 128), "depths": (2, 2), "num_heads": (1, 2)}
# Of `optimizer`: tests/training/test_implementation.py. Of `compile_mode`: test_compiled.py.
FUSED = replace(
    PLAIN,
    attention="fused",
    mlp="recompute",
    decoder_attention="fused",
    patch_embedding="conv",
    head="masked",
    bin_multiple=16,
)
LAST = replace(PLAIN, patch_embedding="channels_last")
FLEX = replace(PLAIN, attention="flex")
others = pytest.mark.parametrize(
    "other", [FUSED, LAST, FLEX], ids=["fused", "channels_last", "flex"]
)
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture(autouse=True)
def flex_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What FlexAttention computes, without torch's: there it would be compiled at every turn."""
    monkeypatch.setattr(attention, "flex_attention", flex_by_hand)
    monkeypatch.setattr(attention, "compiled_flex", lambda: flex_by_hand)


def flex_by_hand(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, score_mod: Any, scale: float
) -> torch.Tensor:
    """See https://docs.pytorch.org/docs/stable/nn.attention.flex_attention.html."""
    scores = scale * query @ key.transpose(-2, -1)
    sides = [torch.arange(side, device=query.device) for side in scores.shape]
    indices = torch.meshgrid(*sides, indexing="ij")
    return score_mod(scores, *indices).softmax(-1).to(value.dtype) @ value


both_versions = pytest.mark.parametrize("version", [1, 2])


def trained(tiny_encoder: Any, version: int, sparse: bool, kernels: Kernels) -> dict[str, Any]:
    """The loss in double precision throughout, and the gradients by name."""
    encoder = tiny_encoder(version=version, **SIZES)
    torch.manual_seed(0)
    model = SparseSimMIM(encoder, decoder_depth=1) if sparse else SimMIM(encoder)
    model = model.double()
    use_kernels(model, kernels)
    draw = np.random.default_rng(0)
    mask = random_mask((8, 16), 0.6, draw, batch_size=2)
    images = torch.from_numpy(draw.standard_normal((2, 3, 64, 128)))
    planned = (encoder.windows.bin_visible(mask),) if sparse else ()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the loss is in float32 else
        loss = model.training_loss(images, mask, *planned)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}


@both_versions
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@others
def test_use_kernels__values_and_gradients_are_equal(
    tiny_encoder: Any, version: int, sparse: bool, other: Kernels
):
    plain, changed = (trained(tiny_encoder, version, sparse, each) for each in (PLAIN, other))
    assert plain.keys() == changed.keys()
    assert all(gradient.abs().max() > 0 for gradient in plain.values())
    torch.testing.assert_close(changed, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@both_versions
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_use_kernels__torchs_flex_attention_is_equal(
    tiny_encoder: Any, monkeypatch: pytest.MonkeyPatch, version: int, sparse: bool
):
    """Its own operations, and its backward pass by them, which torch refuses on a CPU."""
    monkeypatch.setattr(attention, "flex_attention", flex_attention.flex_attention)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    plain, flex = (trained(tiny_encoder, version, sparse, each) for each in (PLAIN, FLEX))
    torch.testing.assert_close(flex, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("device", "calls"), [("cpu", 0), ("meta", 1)])
def test_compiled_flex__is_used_but_on_a_cpu(
    tiny_encoder: Any, monkeypatch: pytest.MonkeyPatch, device: str, calls: int
):
    taken = []
    monkeypatch.setattr(attention, "compiled_flex", lambda: taken.append(1) or flex_by_hand)
    attn = tiny_encoder(**SIZES).blocks()[0].attn.to(device)
    area = attn.window_size[0] * attn.window_size[1]
    query, key, value = torch.randn(3, 2, 5, 1, area, 8, device=device)
    attn._flex(query, key, value, WholeWindows(area))
    assert len(taken) == calls


@pytest.mark.parametrize(("kernels", "calls"), [(PLAIN, 0), (FUSED, 4 + 1)], ids=["plain", "fused"])
def test_use_kernels__takes_the_fused_attention_of_blocks_and_decoder(
    tiny_encoder: Any, monkeypatch: pytest.MonkeyPatch, kernels: Kernels, calls: int
):
    taken = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: taken.append(1) or fused(*a, **k)
    )
    trained(tiny_encoder, 1, True, kernels)
    assert len(taken) == calls


@pytest.mark.parametrize(("mlp", "more"), [("recompute", 0), ("keep", 1)])
def test_use_kernels__keeps_the_activation_or_not(tiny_encoder: Any, mlp: Any, more: int):
    block = tiny_encoder(**SIZES).blocks()[0]
    use_kernels(block, replace(PLAIN, mlp=mlp))
    tokens = torch.randn(1, 8, block.mlp.fc1.in_features)
    kept = set()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.add(t.untyped_storage().data_ptr()) or t, lambda t: t
    ):
        block.mlp(tokens)
    weights = {p.untyped_storage().data_ptr() for p in block.mlp.parameters()}
    assert len(kept - weights) == 2 + more  # tokens, hidden layer, and its GELU


@pytest.mark.parametrize(
    ("kernel", "is_last"), [("product", None), ("conv", False), ("channels_last", True)]
)
def test_use_kernels__embeds_whole_images_by_product_or_convolution(
    tiny_encoder: Any, monkeypatch: pytest.MonkeyPatch, kernel: Any, is_last: bool | None
):
    encoder = tiny_encoder(**SIZES)
    use_kernels(encoder, replace(PLAIN, patch_embedding=kernel))
    seen: list[Any] = []
    convolve = F.conv2d

    def watched(images: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(images.is_contiguous(memory_format=torch.channels_last))
        return convolve(images, *rest)

    monkeypatch.setattr(F, "conv2d", watched)
    encoder.embed(torch.randn(2, 3, 64, 128))
    assert seen == ([] if is_last is None else [is_last])


@pytest.mark.parametrize(("kernel", "cells"), [("all", 8 * 16), ("masked", 77)])
def test_use_kernels__training_paints_all_cells_or_masked_ones(
    tiny_encoder: Any, kernel: Any, cells: int
):
    model = SimMIM(tiny_encoder(**SIZES))
    use_kernels(model, replace(PLAIN, head=kernel))
    head, painted = model.decoder[0], []
    multiply, convolve = F.linear, F.conv2d

    def linear(rows: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        if weight.data_ptr() == head.weight.data_ptr():
            painted.append(rows.shape[:-1])
        return multiply(rows, weight, *rest)

    def conv2d(maps: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        if weight is head.weight:
            painted.append((len(maps), maps.shape[2:].numel()))
        return convolve(maps, weight, *rest)

    mask = random_mask((8, 16), 0.6, np.random.default_rng(0), batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "linear", linear)
        patch.setattr(F, "conv2d", conv2d)
        model.training_loss(torch.randn(2, 3, 64, 128), mask)
        assert painted == [(2, cells)]  # of 128, 0.6 rounded up
        prediction = model.reconstruct(torch.randn(2, 3, 64, 128), mask).prediction
        assert painted[1:] == [(2, 8 * 16)]  # pictures have every cell
    assert prediction.shape == (2, 3, 64, 128)


@pytest.mark.parametrize("side_px", [4, 16])
def test_use_kernels__masked_head_of_other_mask_patches(tiny_encoder: Any, side_px: int):
    """Half as wide as a cell, where all cells are computed, or twice as wide."""
    model = SimMIM(tiny_encoder(**SIZES), mask_patch_size_px=side_px).double()
    mask = random_mask(model.mask_grid, 0.6, np.random.default_rng(0), batch_size=2)
    images = torch.randn(2, 3, 64, 128, dtype=torch.double)
    use_kernels(model, replace(PLAIN, head="masked"))
    loss = model.training_loss(images, mask)
    torch.testing.assert_close(loss, model.reconstruct(images, mask).loss, rtol=1e-12, atol=0)


def test_use_kernels__masked_head_wants_as_many_cells_of_every_image(tiny_encoder: Any):
    model = SimMIM(tiny_encoder(**SIZES))
    use_kernels(model, replace(PLAIN, head="masked"))
    mask = random_mask((8, 16), 0.6, np.random.default_rng(0), batch_size=2)
    mask[1, 0] = True
    with pytest.raises(RuntimeError, match="every image must have 77 masked cells"):
        model.training_loss(torch.randn(2, 3, 64, 128), mask)


def test_use_kernels__rounds_the_number_of_bins_up(tiny_encoder: Any):
    mask = random_mask((8, 16), 0.6, np.random.default_rng(0), batch_size=2)
    before, after = tiny_encoder(**SIZES), tiny_encoder(**SIZES)
    planner = before.visible_planner()  # before and after it is made
    fewest = planner(mask).num_bins
    for encoder in (before, after):
        use_kernels(encoder, replace(PLAIN, bin_multiple=16))
        rounded = encoder.visible_planner()(mask).num_bins
        assert planner(mask).num_bins == rounded
        assert all(16 > number - few >= 0 for number, few in zip(rounded, fewest, strict=True))
        packed = [n for n, few in zip(rounded, fewest, strict=True) if n != few]
        assert packed and all(number % 16 == 0 for number in packed)


def test_use_kernels__reaches_targets_too(tiny_encoder: Any):
    model = MoBY(
        tiny_encoder(**SIZES), temperature=0.2, queue_length=8, momentum=0.9, hidden_dim=8,
        out_dim=4, stages=None, colors=plain_views(),
    )  # fmt: skip
    use_kernels(model, FUSED)
    attentions = [each for each in model.modules() if isinstance(each, WindowAttention)]
    assert len(attentions) == 2 * 4
    assert {each.kernel for each in attentions} == {"fused"}
    mlps = [each for each in model.modules() if isinstance(each, RecomputingMlp)]
    assert {each.kernel for each in mlps} == {"recompute"}


@pytest.mark.slow
@both_versions
@pytest.mark.parametrize("objective", ["dense", "sparse"])
@pytest.mark.parametrize(
    "kernels", [PLAIN, FUSED, LAST, FLEX], ids=["plain", "fused", "last", "flex"]
)
def test_use_kernels__no_choice_waits_for_a_gpu(
    tiny_encoder: Any, version: int, objective: str, kernels: Kernels
):
    on_a_fake_gpu(tiny_encoder, version, shared=False, objective=objective, kernels=kernels)

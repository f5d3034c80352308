"""All choices of kernels are equal to rounding, values and gradients, and each is really taken."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_views import plain_views
from test_devices import on_a_fake_gpu

from ssl_swin.encoders.kernels import Kernels, use_kernels
from ssl_swin.encoders.windows.attention import WindowAttention
from ssl_swin.encoders.windows.blocks import RecomputingMlp
from ssl_swin.masking import random_mask
from ssl_swin.objectives.moby import MoBY
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM

SIZES: dict[str, Any] = {"img_size_px": (64, 128), "depths": (2, 2), "num_heads": (1, 2)}
PLAIN = Kernels(attention="products", mlp="keep", decoder_attention="products")
FUSED = Kernels(attention="fused", mlp="recompute", decoder_attention="fused")
both_versions = pytest.mark.parametrize("version", [1, 2])


def trained(tiny_encoder: Any, version: int, sparse: bool, kernels: Kernels) -> dict[str, Any]:
    """The loss in double precision, and the gradients by name."""
    encoder = tiny_encoder(version=version, **SIZES)
    torch.manual_seed(0)
    model = SparseSimMIM(encoder, decoder_depth=1) if sparse else SimMIM(encoder)
    model = model.double()
    use_kernels(model, kernels)
    draw = np.random.default_rng(0)
    mask = random_mask((8, 16), 0.6, draw, batch_size=2)
    images = torch.from_numpy(draw.standard_normal((2, 3, 64, 128)))
    planned = (encoder.windows.bin_visible(mask),) if sparse else ()
    loss = model.reconstruct(images, mask, *planned).loss
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients}


@both_versions
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_use_kernels__values_and_gradients_are_equal(tiny_encoder: Any, version: int, sparse: bool):
    plain, fused = (trained(tiny_encoder, version, sparse, each) for each in (PLAIN, FUSED))
    assert plain.keys() == fused.keys()
    assert all(gradient.abs().max() > 0 for gradient in plain.values())
    torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-12)


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
    use_kernels(block, Kernels(attention="products", mlp=mlp, decoder_attention="products"))
    tokens = torch.randn(1, 8, block.mlp.fc1.in_features)
    kept = set()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.add(t.untyped_storage().data_ptr()) or t, lambda t: t
    ):
        block.mlp(tokens)
    weights = {p.untyped_storage().data_ptr() for p in block.mlp.parameters()}
    assert len(kept - weights) == 2 + more  # tokens, hidden layer, and its GELU


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
@pytest.mark.parametrize("kernels", [PLAIN, FUSED], ids=["plain", "fused"])
def test_use_kernels__no_choice_waits_for_a_gpu(
    tiny_encoder: Any, version: int, objective: str, kernels: Kernels
):
    on_a_fake_gpu(tiny_encoder, version, shared=False, objective=objective, kernels=kernels)

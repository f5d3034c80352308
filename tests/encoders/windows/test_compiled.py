"""What `compile=true` promises, with graphs captured and differentiated but not turned into C++."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from plain_kernels import PLAIN
from torch._dynamo.utils import counters
from torch.nn.attention import flex_attention

from ssl_swin.encoders.dense_encoder import DenseEncoder
from ssl_swin.encoders.kernels import use_kernels
from ssl_swin.encoders.resnet import resnet
from ssl_swin.encoders.windows.blocks import compiled_compute
from ssl_swin.masking import random_mask
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM

SIZES = {"img_size_px": 128, "depths": (3, 2), "num_heads": (1, 2), "drop_path_rate": 0.2}
BASE = dataclasses.replace(PLAIN, mlp="recompute")
both_versions = pytest.mark.parametrize("version", [1, 2])
both_objectives = pytest.mark.parametrize(
    "objective", [SimMIM, partial(SparseSimMIM, decoder_depth=1)], ids=["dense", "sparse"]
)


@pytest.fixture(autouse=True)
def captured_graphs(monkeypatch):
    """Compiles anew in each test, without a C++ compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    compiled_compute.cache_clear()
    counters.clear()
    yield
    compiled_compute.cache_clear()
    torch._dynamo.reset()


def batch_for(model, seed):
    rows, columns = (side_px // model.encoder.stride for side_px in model.encoder.img_size_px)
    mask = random_mask((rows, columns), 0.6, np.random.default_rng(seed), batch_size=2)
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(seed))
    return images, mask


def trained_once(model, seed=0):
    torch.manual_seed(seed)
    loss = model.reconstruct(*batch_for(model, seed)).loss
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return loss.detach(), gradients


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "attention"), [(1, "products"), (2, "products"), (2, "fused"), (1, "flex")]
)
@both_objectives
def test_compile_blocks__changes_neither_results_nor_names(
    tiny_encoder, monkeypatch, version, objective, attention
):
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    torch.manual_seed(0)
    model = objective(tiny_encoder(version=version, **SIZES)).train()
    before = "products" if attention == "flex" else attention  # torch's would compile by itself
    use_kernels(model, dataclasses.replace(BASE, attention=before))
    names = list(model.state_dict())
    loss, gradients = trained_once(model)

    use_kernels(model, dataclasses.replace(BASE, attention=attention))
    model.encoder.compile_blocks()
    compiled_loss, compiled_gradients = trained_once(model)

    assert list(model.state_dict()) == names
    assert counters["stats"]["unique_graphs"] > 0
    torch.testing.assert_close(compiled_loss, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled_gradients[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_swin", [True, False])
def test_compile_blocks__takes_the_mode(tiny_encoder, monkeypatch, is_swin):
    asked = []

    def compile_(function, **options):
        asked.append(options.get("mode"))
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    others = {"img_size_px": 64, "depths": (1, 1, 1, 1), "channels": (64, 8, 8, 8)}
    encoder = tiny_encoder(**SIZES) if is_swin else resnet(block="basic", **others)
    use_kernels(encoder, dataclasses.replace(BASE, compile_mode="reduce-overhead"))
    encoder.train().compile_blocks()
    encoder(torch.randn(2, 3, *encoder.img_size_px)).sum().backward()
    assert asked and set(asked) == {"reduce-overhead"}


@pytest.mark.slow
@both_objectives
def test_compile_blocks__one_graph_for_all_blocks_and_steps_of_a_shape(tiny_encoder, objective):
    model = objective(tiny_encoder(**SIZES)).train()
    model.encoder.compile_blocks()
    trained_once(model)
    # Two stages, shifted and not. A first dense block may get its first path dropped at a rate of
    # 0: no draw, and so a graph of its own.
    graphs = counters["stats"]["unique_graphs"]
    assert graphs <= 5
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(1, 6):
            trained_once(model, seed)
    assert counters["stats"]["unique_graphs"] == graphs
    windows = model.encoder.windows
    packings = [windows.bin_visible(batch_for(model, seed)[1]) for seed in range(6)]
    assert len({packing.num_bins for packing in packings}) > 1  # and yet no graph for each


@pytest.mark.slow
@both_versions
def test_compile_blocks__of_images_of_any_size_those_that_recur(tiny_encoder, version):
    """Sides that neither patches nor windows divide, so that both are filled up."""
    encoder = tiny_encoder(version=version, **SIZES, window_size=8).train()
    dense = DenseEncoder(encoder)
    names = list(dense.state_dict())

    def passed(size):
        torch.manual_seed(0)
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
        sum(
            (each**2).mul(torch.linspace(0, 1, each.shape[-1])).sum() for each in dense(images)
        ).backward()
        gradients = {n: p.grad.clone() for n, p in dense.named_parameters() if p.requires_grad}
        dense.zero_grad()
        return gradients

    expected = passed((45, 70))
    encoder.compile_blocks((45, 70))
    actual = passed((45, 70))
    graphs = counters["stats"]["unique_graphs"]
    assert 0 < graphs <= 5 and list(dense.state_dict()) == names
    for name, gradient in expected.items():
        torch.testing.assert_close(
            actual[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item() + 1e-5
        )
    with torch._dynamo.config.patch(error_on_recompile=True):
        passed((45, 70))
        passed((61, 33))  # as they are, without a graph
    assert counters["stats"]["unique_graphs"] == graphs

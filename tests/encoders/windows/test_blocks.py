import copy
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from ssl_swin.encoders.windows.blocks import WindowBlock, drop_path_scale
from ssl_swin.encoders.windows.layout import WholeWindows
from ssl_swin.masking import random_mask
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM

both_versions = pytest.mark.parametrize("version", [1, 2])
PASSES = {
    "encode": lambda encoder, images: encoder(images),
    "stages": lambda encoder, images: encoder.stages(images)[-1],
    "any size": lambda encoder, images: encoder(images[..., :50, :59], any_size=True),
    "encode_visible": lambda encoder, images: encoder.encode_visible(
        images, encoder.windows.bin_visible(mask_for(encoder))
    ),
}
every_pass = pytest.mark.parametrize("run", PASSES.values(), ids=PASSES)


def mask_for(encoder):
    return random_mask(encoder.windows.grid, 0.5, np.random.default_rng(0), batch_size=2)


def images_for(encoder):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, encoder.in_chans, *encoder.img_size_px, generator=generator)


def blocks_of(encoder):
    return [module for module in encoder.modules() if isinstance(module, WindowBlock)]


# Calls


@every_pass
@both_versions
@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_hooks__fire_once_on_every_block(tiny_encoder, version, run, grad_checkpointing):
    encoder = tiny_encoder(
        version=version, grad_checkpointing=grad_checkpointing, drop_path_rate=0.2
    )
    before, after, gradients = Counter(), Counter(), Counter()
    for number, block in enumerate(blocks_of(encoder)):
        block.register_forward_pre_hook(lambda *_, n=number: before.update([n]))
        block.register_forward_hook(lambda *_, n=number: after.update([n]))
        block.register_full_backward_hook(lambda *_, n=number: gradients.update([n]))
    run(encoder.train(), images_for(encoder)).square().sum().backward()
    assert before == after == gradients == Counter(range(sum(encoder.depths)))


@both_versions
def test_hooks__can_change_a_blocks_output(tiny_encoder, version):
    encoder = tiny_encoder(version=version)
    images = images_for(encoder)
    with torch.no_grad():
        plain = encoder(images)
        handle = blocks_of(encoder)[-1].register_forward_hook(lambda _, inputs, __: inputs[0])
        skipped = encoder(images)
        handle.remove()
        assert encoder(images).equal(plain)
    assert not torch.allclose(skipped, plain)


@every_pass
@both_versions
def test_modules__with_parameters_are_all_called(tiny_encoder, version, run):
    encoder = tiny_encoder(version=version)
    owners = [module for module in encoder.modules() if [*module.parameters(recurse=False)]]
    called = set()
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: called.add(module))
    try:
        run(encoder, images_for(encoder))
    finally:
        hook.remove()
    assert [module for module in owners if module not in called] == []


@every_pass
@both_versions
def test_modules__compute_the_same_when_they_are_watched(tiny_encoder, version, run):
    """A hook on a layer takes away its shortcut: the result must not change, gradients included."""
    encoder = tiny_encoder(version=version).double()
    watched = copy.deepcopy(encoder)
    calls = Counter()
    for name, module in watched.named_modules():
        module.register_forward_hook(lambda *_, n=name: calls.update([n]))
    results = []
    for model in (encoder, watched):
        result = run(model, images_for(encoder).double())
        result.square().sum().backward()
        results.append((result, [parameter.grad for parameter in model.parameters()]))
    ours, theirs = results
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    layers = ("attn", "attn.qkv", "attn.proj", "mlp", "mlp.fc1", "mlp.act", "mlp.fc2", "norm1")
    names = [f"model.layers.1.blocks.0.{layer}" for layer in layers]
    names += ["model.patch_embed", "model.patch_embed.proj", "model.layers.1.downsample"]
    assert {name: calls[name] for name in names} == dict.fromkeys(names, 1)


def test_blocks__have_timms_names_and_no_others(tiny_encoder, timm_twin):
    for version in (1, 2):
        encoder = tiny_encoder(version=version)
        twin = timm_twin(encoder)
        assert list(encoder.model.state_dict()) == list(twin.state_dict())
        ours = [(name, buffer.shape) for name, buffer in encoder.model.named_buffers()]
        assert ours == [(name, buffer.shape) for name, buffer in twin.named_buffers()]


# Parametrisations and adapters


class LowRank(nn.Module):
    """The update of LoRA (arXiv:2106.09685), with both factors away from zero."""

    def __init__(self, weight):
        super().__init__()
        self.down = nn.Parameter(0.3 * torch.randn(2, weight.shape[1]))
        self.up = nn.Parameter(0.3 * torch.randn(weight.shape[0], 2))

    def forward(self, weight):
        return weight + self.up @ self.down


class Adapter(nn.Module):
    """A layer beside another one, as adapter libraries put in its place."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.update = LowRank(layer.weight)

    def forward(self, inputs):
        return self.layer(inputs) + inputs @ self.update.down.T @ self.update.up.T


LAYERS = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]


@every_pass
@both_versions
def test_parametrised__weights_act_and_learn(tiny_encoder, version, run):
    torch.manual_seed(0)
    encoder = tiny_encoder(version=version).double()
    adapted, merged = copy.deepcopy(encoder), copy.deepcopy(encoder)
    images = images_for(encoder).double()
    for block, target in zip(blocks_of(adapted), blocks_of(merged), strict=True):
        for name in LAYERS:
            layer = block.get_submodule(name)
            update = LowRank(layer.weight).double()
            with torch.no_grad():
                target.get_submodule(name).weight.copy_(update(layer.weight))
            parametrize.register_parametrization(layer, "weight", update)
    adapted.requires_grad_(False)
    updates = [module for module in adapted.modules() if isinstance(module, LowRank)]
    assert len(updates) == len(LAYERS) * sum(encoder.depths)
    for update in updates:
        update.requires_grad_(True)

    output = run(adapted, images)
    output.square().sum().backward()

    torch.testing.assert_close(output, run(merged, images), rtol=0, atol=1e-10)
    assert not torch.allclose(output, run(encoder, images))
    for update in updates:
        assert update.up.grad.abs().sum() > 0 and update.down.grad.abs().sum() > 0


@both_versions
def test_adapters__in_the_place_of_layers(tiny_encoder, version):
    torch.manual_seed(0)
    encoder = tiny_encoder(version=version).double()
    adapted, merged = copy.deepcopy(encoder), copy.deepcopy(encoder)
    for block, target in zip(blocks_of(adapted), blocks_of(merged), strict=True):
        for name in LAYERS:
            adapter = Adapter(block.get_submodule(name)).double()
            with torch.no_grad():
                weight = target.get_submodule(name).weight
                weight.copy_(adapter.update(weight))
            block.set_submodule(name, adapter)
    images = images_for(encoder).double()
    for run in PASSES.values():
        with torch.no_grad():
            output = run(adapted, images)
            torch.testing.assert_close(output, run(merged, images), rtol=0, atol=1e-10)
            assert not torch.allclose(output, run(encoder, images))


# Checkpointing and drop path


@both_versions
@pytest.mark.parametrize(
    "objective", [SimMIM, partial(SparseSimMIM, decoder_depth=1)], ids=["dense", "sparse"]
)
def test_checkpointing__changes_nothing(tiny_encoder, version, objective):
    gradients = []
    for checkpointing in (False, True):
        encoder = tiny_encoder(
            version=version, grad_checkpointing=checkpointing, drop_path_rate=0.5
        )
        model = objective(encoder).train()
        torch.manual_seed(1)
        mask = mask_for(encoder)
        model.reconstruct(images_for(encoder), mask).loss.backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=0)


@both_versions
def test_compute__drop_paths_scale_each_branch(tiny_encoder, version):
    encoder = tiny_encoder(
        version=version, img_size_px=16, window_size=4, depths=(1,), num_heads=(1,)
    )
    (block,) = blocks_of(encoder)
    tokens, layout = torch.randn(1, 16, 8), WholeWindows(16)
    twice, none = torch.full((1, 1, 1), 2.0), torch.zeros(1, 1, 1)
    both = block.compute(tokens, layout, None, None)
    attention_twice = block.compute(tokens, layout, twice, none)
    attention_once = block.compute(tokens, layout, None, none)
    assert block.compute(tokens, layout, none, none).equal(tokens)
    torch.testing.assert_close(attention_twice - tokens, 2 * (attention_once - tokens))
    assert not torch.allclose(both, attention_once)
    assert block.eval()(tokens, layout).equal(both)


def test_drop_path__whole_images_are_dropped_and_the_rest_scaled(tiny_encoder):
    encoder = tiny_encoder(
        img_size_px=16, window_size=4, depths=(2,), num_heads=(1,), drop_path_rate=0.75
    )
    last = blocks_of(encoder)[1]  # the rate rises to its full value in the last block
    nn.init.zeros_(last.mlp.fc2.weight)
    nn.init.zeros_(last.mlp.fc2.bias)
    tokens, layout = torch.randn(1, 16, 8).expand(64, -1, -1), WholeWindows(16)
    branch = last.eval()(tokens, layout) - tokens
    after = last.train()(tokens, layout)
    seen = {
        round(float((added / whole).detach().median()), 3)
        for added, whole in zip(after - tokens, branch, strict=True)
    }
    assert seen == {0.0, 4.0}


def test_drop_path_scale__draws_as_timm_does(tiny_encoder):
    block = blocks_of(tiny_encoder(drop_path_rate=0.5))[-1]
    tokens = torch.randn(64, 4, 8)
    assert drop_path_scale(block.drop_path1.eval(), tokens) is None
    path = block.drop_path1.train()
    torch.manual_seed(3)
    scaled = tokens * drop_path_scale(path, tokens)
    torch.manual_seed(3)
    assert scaled.equal(path(tokens))

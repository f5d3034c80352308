"""Images of any size, by the rule of the original's segmentation and detection code.

The original's own numbers are read from `../shared/golden/dense`, or from `dense` in the folder
that SSL_SWIN_GOLDEN names; without them a slow reference, written here from the rule, still runs.
"""

import json
import os
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError

both_versions = pytest.mark.parametrize("version", [1, 2])
SHARED = Path(__file__).parents[3] / "shared" / "golden"
GOLDEN_SIZES = ["224x224", "230x317", "112x96", "33x41"]


# The original's numbers


@pytest.fixture(scope="module")
def golden():
    folder = Path(os.environ.get("SSL_SWIN_GOLDEN", SHARED)) / "dense"
    if not folder.is_dir():
        pytest.skip("../shared/golden/dense is not here")
    facts = json.loads((folder / "swin_v1_w7.json").read_text())
    return (
        facts,
        load_file(folder / "swin_v1_w7_weights.safetensors"),
        load_file(folder / "swin_v1_w7_maps.safetensors"),
    )


def timm_name(name):
    """Their merging ends a stage, timm's begins the next one."""
    return re.sub(
        r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", name
    )


def original(golden):
    """Builds the encoder and the norms of its maps, which the original has instead of one."""
    facts, weights, _ = golden
    encoder = swin(version=1, img_size_px=224, **facts["model"]).eval()
    own = {timm_name(name): tensor for name, tensor in weights.items()}
    state = {name: own.pop(name) for name in encoder.model.state_dict() if name in own}
    missing, _ = encoder.model.load_state_dict(state, strict=False)
    assert missing == ["norm.weight", "norm.bias"]
    norms = [
        {part: own.pop(f"norm{stage}.{part}").requires_grad_() for part in ("weight", "bias")}
        for stage in range(4)
    ]
    assert {name.rpartition(".")[2] for name in own} == {"relative_position_index"}
    return encoder, norms


def normed(maps, norms):
    return [
        F.layer_norm(m.permute(0, 2, 3, 1), m.shape[1:2], **norm).permute(0, 3, 1, 2)
        for m, norm in zip(maps, norms, strict=True)
    ]


@pytest.mark.parametrize("size", GOLDEN_SIZES)
def test_stages__are_the_originals(golden, size):
    encoder, norms = original(golden)
    arrays = golden[2]
    with torch.no_grad():
        maps = encoder.stages(arrays[f"{size}.image"].float(), any_size=True, final_norm=False)
        maps = normed(maps, norms)
    for stage, actual in enumerate(maps):
        expected = arrays[f"{size}.map{stage}"]
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
        assert expected.std() > 0.1


def test_stages__have_the_originals_gradients(golden):
    facts, _, arrays = golden
    encoder, norms = original(golden)
    images = arrays["230x317.image"].float()
    maps = normed(encoder.stages(images, any_size=True, final_norm=False), norms)
    loss = sum((m * torch.cos(0.1 * torch.arange(m.numel())).view_as(m)).mean() for m in maps)
    assert loss.item() == pytest.approx(facts["loss_230x317"], abs=1e-6)
    loss.backward()
    parameters = {f"norm{s}.{part}": p for s, norm in enumerate(norms) for part, p in norm.items()}
    parameters |= dict(encoder.model.named_parameters())
    expected = {timm_name(name): n for name, n in facts["gradient_norms_230x317"].items()}
    assert expected.keys() == parameters.keys() - {"norm.weight", "norm.bias"}
    actual = {name: parameters[name].grad.norm().item() for name in expected}
    assert actual == pytest.approx(expected, rel=1e-4)


# The rule, for both versions


def padded(tokens, multiple):
    """Zeros on the right and at the bottom of NHWC tokens, up to multiples of (rows, columns)."""
    rows, columns = tokens.shape[1:3]
    return F.pad(tokens, (0, 0, 0, -columns % multiple[1], 0, -rows % multiple[0]))


def window_by_window(attention, tokens, shift):
    """Attention of timm's module in one window at a time, each with a mask of its own."""
    high, wide = attention.window_size
    rows, columns = tokens.shape[1:3]
    tokens = padded(tokens, (high, wide))
    rolled = tokens.roll((-shift[0], -shift[1]), (1, 2))
    down, across = torch.meshgrid(*map(torch.arange, tokens.shape[1:3]), indexing="ij")
    wraps = 2 * (down >= tokens.shape[1] - shift[0]) + (across >= tokens.shape[2] - shift[1])
    output = torch.zeros_like(rolled)
    for top in range(0, rolled.shape[1], high):
        for left in range(0, rolled.shape[2], wide):
            at = slice(top, top + high), slice(left, left + wide)
            region = wraps[at].flatten()
            mask = -100.0 * (region[:, None] != region).to(tokens.dtype)
            window = rolled[:, *at].flatten(1, 2)
            output[:, *at] = attention(window, mask[None]).view(-1, high, wide, window.shape[-1])
    return output.roll(shift, (1, 2))[:, :rows, :columns]


def by_the_rule(model, version, images):
    """Maps (B, C, H, W) of timm's modules, before the final norm."""
    patch = model.patch_embed.patch_size
    images = padded(images.permute(0, 2, 3, 1), patch).permute(0, 3, 1, 2)
    tokens = model.patch_embed.norm(model.patch_embed.proj(images).permute(0, 2, 3, 1))
    maps = []
    for stage in model.layers:
        if maps:
            tokens = padded(tokens, (2, 2))
            corners = [tokens[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
            merging, four = stage.downsample, torch.cat(corners, dim=-1)
            tokens = (
                merging.reduction(merging.norm(four))
                if version == 1
                else merging.norm(merging.reduction(four))
            )
        for number, block in enumerate(stage.blocks):
            shift = tuple(side // 2 if number % 2 else 0 for side in block.attn.window_size)
            if version == 1:
                tokens = tokens + window_by_window(block.attn, block.norm1(tokens), shift)
                tokens = tokens + block.mlp(block.norm2(tokens))
            else:
                tokens = tokens + block.norm1(window_by_window(block.attn, tokens, shift))
                tokens = tokens + block.norm2(block.mlp(tokens))
        maps.append(tokens.permute(0, 3, 1, 2))
    return maps


FOUR_STAGES = {"depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}
CASES = {
    "own size": ({}, (64, 64)),
    "windows tile": ({}, (128, 192)),
    "nothing divides": ({}, (57, 90)),
    "narrow": ({}, (64, 9)),
    "one pixel": ({}, (1, 1)),
    "odd window": ({"img_size_px": 56, "window_size": 7}, (61, 40)),
    "windows that are not square": ({"img_size_px": (32, 64)}, (50, 70)),
    "two channels": ({"in_chans": 2, "patch_size_px": 2, "img_size_px": 32}, (31, 33)),
}


@pytest.mark.slow
@both_versions
@pytest.mark.parametrize("case", CASES)
def test_stages__follow_the_rule_with_gradients(tiny_encoder, timm_twin, version, case):
    changes, size = CASES[case]
    if "img_size_px" in changes and changes.get("window_size") == 7:
        changes = changes | {"depths": (2, 2), "num_heads": (1, 2)}
    encoder = tiny_encoder(version=version, **(FOUR_STAGES | changes)).double()
    twin = timm_twin(encoder)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, encoder.in_chans, *size, dtype=torch.double, generator=generator)
    ours = encoder.stages(images, any_size=True, final_norm=False)
    theirs = by_the_rule(twin, version, images)
    assert len(ours) == len(theirs) == len(encoder.depths)
    for actual, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)
    gradients = [
        torch.autograd.grad(
            sum(m.pow(3).mean() for m in maps), [p for p in model.layers.parameters()]
        )
        for model, maps in ((encoder.model, ours), (twin, theirs))
    ]
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-11)


@both_versions
def test_forward__of_any_size_ends_in_the_final_norm(tiny_encoder, version):
    encoder = tiny_encoder(version=version)
    images = torch.randn(2, 3, 45, 70)
    with torch.no_grad():
        last = encoder.stages(images, any_size=True, final_norm=False)[-1]
        expected = encoder.model.norm(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert last.shape == (2, 64, 2, 3)
        torch.testing.assert_close(encoder(images, any_size=True), expected)
        torch.testing.assert_close(encoder.stages(images, any_size=True)[-1], expected)
        tokens = encoder.embed(images, any_size=True)
        assert tokens.shape == (2, 12, 18, 8)
        torch.testing.assert_close(encoder.encode(tokens, any_size=True), expected)


@both_versions
def test_stages__where_windows_tile_every_map_are_those_of_pretraining(tiny_encoder, version):
    """No stage of this encoder is held by one window, so both rules ask for the same."""
    encoder = tiny_encoder(version=version, img_size_px=128, depths=(2, 2), num_heads=(1, 2))
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        for plain, free in zip(
            encoder.stages(images), encoder.stages(images, any_size=True), strict=True
        ):
            assert plain.equal(free)


@both_versions
def test_stages__in_bf16_and_checkpointed(tiny_encoder, version):
    images = torch.randn(2, 3, 45, 70)
    gradients = []
    for grad_checkpointing in (False, True):
        encoder = tiny_encoder(
            version=version, grad_checkpointing=grad_checkpointing, drop_path_rate=0.5
        ).train()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            maps = encoder.stages(images, any_size=True)
        sum(m.float().square().mean() for m in maps).backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert plain.isfinite().all()
        torch.testing.assert_close(checkpointed, plain, rtol=0, atol=0)


def test_stages__the_size_is_checked_unless_any_is_asked_for(tiny_encoder):
    encoder = tiny_encoder()
    message = r"takes images of 3 channels and 64x64 px, got \(3, 64, 96\)"
    for run in (encoder, encoder.stages, encoder.embed, encoder.model):
        with pytest.raises(UserError, match=message):
            run(torch.randn(1, 3, 64, 96))
    mask = torch.zeros(1, *encoder.windows.grid, dtype=torch.bool)
    with pytest.raises(UserError, match=message):
        encoder.encode_visible(torch.randn(1, 3, 64, 96), encoder.windows.bin_visible(mask))
    for shape in ((1, 5, 64, 64), (1, 3, 0, 64), (3, 64, 64)):
        with pytest.raises(UserError, match="takes images of 3 channels and any size, got"):
            encoder.stages(torch.randn(shape), any_size=True)


def test_layouts__are_kept_for_the_latest_sizes(tiny_encoder, monkeypatch):
    monkeypatch.setattr("ssl_swin.encoders.swin._MOST_LAYOUTS", 3)
    built = []
    from ssl_swin.encoders import swin as module

    build = module.dense_layouts
    monkeypatch.setattr(
        module, "dense_layouts", lambda *a, **k: built.append(a[1]) or build(*a, **k)
    )
    encoder = tiny_encoder()
    with torch.no_grad():
        for side_px in (20, 40, 60, 20, 80, 20, 40):
            encoder(torch.randn(1, 3, side_px, 20), any_size=True)
    assert built == [(5, 5), (10, 5), (15, 5), (20, 5), (10, 5)]
    assert len(encoder._layouts) == 3

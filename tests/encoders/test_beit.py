import json
import math
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_swin.encoders.beit import BeitEncoder, beit
from ssl_swin.encoders.positions import sine_cosine
from ssl_swin.errors import UserError
from ssl_swin.masking import expand_mask
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.weights.cards import Training, backbone_card

TINY: dict[str, Any] = {"img_size_px": 64, "embed_dim": 8, "depth": 4, "num_heads": 2}


def vit(*, seed: int = 0, **changes: Any) -> BeitEncoder:
    """A ViT of 64 px in eval mode with every weight disturbed: fresh tables are zero."""
    torch.manual_seed(seed)
    encoder = beit(**(TINY | changes))
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder.eval()


def images_for(encoder: BeitEncoder, batch_size: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch_size, encoder.in_chans, *encoder.img_size_px, generator=generator)


def timm_map(encoder: BeitEncoder, images: Tensor) -> Tensor:
    """The last map by timm's own forward pass."""
    tokens = encoder.model.forward_features(images)[:, 1:].transpose(1, 2)
    return tokens.unflatten(2, [side // encoder.patch_size_px for side in encoder.img_size_px])


@pytest.mark.parametrize(
    "changes",
    [{}, {"in_chans": 5}, {"img_size_px": (32, 96)}, {"patch_size_px": 8}, {"final_norm": False},
     {"img_size_px": (32, 96), "fixed_positions": True}],
    ids=str,
)  # fmt: skip
def test_encoder__equals_timms_own_forward(changes):
    encoder = vit(**changes)
    images = images_for(encoder)
    with torch.no_grad():
        tokens, last, maps = encoder.embed(images), encoder(images), encoder.stages(images)
        expected = timm_map(encoder, images)
    rows, columns = (side // encoder.stride for side in encoder.img_size_px)
    assert tokens.shape == (2, rows, columns, encoder.embed_dim)
    assert last.shape == (2, encoder.num_features, rows, columns)
    assert last.is_contiguous()
    assert last.equal(expected)
    assert last.equal(encoder.encode(tokens))
    assert last.equal(maps[-1])
    assert last.std() > 0.1


def test_encoder__embedding_is_a_projection_of_each_patch():
    encoder = vit(img_size_px=(32, 64))
    images, projection = images_for(encoder), encoder.model.patch_embed.proj
    patch = images[1, :, 16:32, 48:64]
    expected = (projection.weight * patch).sum(dim=(1, 2, 3)) + projection.bias
    torch.testing.assert_close(encoder.embed(images)[1, 1, 3], expected, rtol=1e-5, atol=1e-5)


def test_stages__come_after_every_second_block_and_before_the_norm():
    encoder = vit(depth=5)
    images = images_for(encoder)
    outputs = []
    for block in encoder.model.blocks:
        block.register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.no_grad():
        maps = encoder.stages(images)
    assert encoder.stage_blocks == (1, 3, 5)
    assert encoder.stage_dims == (8, 8, 8)
    assert len(maps) == 3
    for stage_map, number in zip(maps[:-1], (1, 3), strict=True):
        assert stage_map.flatten(2).equal(outputs[number - 1][:, 1:].transpose(1, 2))
    normed = encoder.model.norm(outputs[4])[:, 1:].transpose(1, 2)
    assert maps[2].flatten(2).equal(normed)
    assert not normed.allclose(outputs[4][:, 1:].transpose(1, 2), atol=0.1)


def test_stages__reach_block_8_of_12():
    assert beit(**(TINY | {"depth": 12})).stage_blocks == (2, 4, 6, 8, 10, 12)


def offset_row(query: int, key: int, rows: int, columns: int) -> int:
    """Row of the table for a query and a key; 0 is the cls token, patches count from 1."""
    num_offsets = (2 * rows - 1) * (2 * columns - 1)
    if query == 0 or key == 0:
        return (
            num_offsets
            + {(True, False): 0, (False, True): 1, (True, True): 2}[query == 0, key == 0]
        )
    (y, x), (key_y, key_x) = divmod(query - 1, columns), divmod(key - 1, columns)
    return (y - key_y + rows - 1) * (2 * columns - 1) + (x - key_x + columns - 1)


def slow_attention(attention: Any, x: Tensor, table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Attention of one image (N, D), by query, key and head."""
    num_heads, width = attention.num_heads, x.shape[1]
    weight_q, weight_k, weight_v = attention.qkv.weight.double().chunk(3)
    q = x @ weight_q.T + attention.q_bias.double()
    k = x @ weight_k.T
    v = x @ weight_v.T + attention.v_bias.double()
    mixed = torch.zeros_like(x)
    for head in range(num_heads):
        part = slice(head * width // num_heads, (head + 1) * width // num_heads)
        for query in range(len(x)):
            scores = torch.stack(
                [
                    (q[query, part] * k[key, part]).sum() / math.sqrt(width / num_heads)
                    + table[offset_row(query, key, *grid), head]
                    for key in range(len(x))
                ]
            )
            mixed[query, part] = scores.softmax(0) @ v[:, part]
    return mixed @ attention.proj.weight.double().T + attention.proj.bias.double()


def double_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    deviation = (x.var(dim=-1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    return (x - x.mean(dim=-1, keepdim=True)) / deviation * norm.weight + norm.bias


@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_encode__equals_a_slow_block(shared):
    encoder = vit(img_size_px=(32, 48), depth=1, shared_position_bias=shared)
    model, (block,) = encoder.model, encoder.model.blocks
    owner = model.rel_pos_bias if shared else block.attn
    table = owner.relative_position_bias_table.double()
    assert table.shape == (3 * 5 + 3, 2)

    tokens = encoder.embed(images_for(encoder, batch_size=1))
    x = torch.cat([model.cls_token[0], tokens[0].flatten(0, 1)]).double()
    attended = slow_attention(block.attn, double_norm(x, block.norm1), table, (2, 3))
    x = x + block.gamma_1 * attended
    hidden = double_norm(x, block.norm2) @ block.mlp.fc1.weight.double().T + block.mlp.fc1.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    x = x + block.gamma_2 * (hidden @ block.mlp.fc2.weight.double().T + block.mlp.fc2.bias)
    expected = double_norm(x, model.norm)[1:].T.unflatten(1, (2, 3))

    found = encoder.encode(tokens)[0].double()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    model_without = vit(img_size_px=(32, 48), depth=1, shared_position_bias=shared)
    for name, parameter in model_without.model.named_parameters():
        if name.endswith("bias_table"):
            parameter.zero_()
    assert (model_without.encode(tokens)[0].double() - expected).abs().max() > 1e-3


@torch.no_grad()
def test_simmim__masked_pass_equals_timms_with_the_token_put_in_its_patches():
    model = SimMIM(vit())
    torch.nn.init.normal_(model.mask_token)
    images = images_for(model.encoder)
    mask = torch.tensor([[[True, False], [False, True]], [[True, True], [False, True]]])  # 32 px
    unmasked = timm_map(model.encoder, images)
    output = model.reconstruct(images, mask)

    hidden = expand_mask(mask, (4, 4)).flatten(1)[..., None]
    model.encoder.model.patch_embed.register_forward_hook(
        lambda _, __, tokens: torch.where(hidden, model.mask_token, tokens)
    )
    assert output.features.equal(timm_map(model.encoder, images))
    assert not output.features.allclose(unmasked, atol=0.01)
    assert output.prediction.shape == images.shape


@torch.no_grad()
def test_simmim__nothing_masked_is_timms_own_pass():
    model = SimMIM(vit())
    images = images_for(model.encoder)
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    assert model.reconstruct(images, mask).features.equal(timm_map(model.encoder, images))


def test_simmim__the_encoder_never_sees_masked_pixels():
    model = SimMIM(vit())
    images = images_for(model.encoder)
    mask = torch.tensor([[[True, False], [False, True]], [[True, True], [False, True]]])
    hidden = expand_mask(mask, (64, 64)).unsqueeze(1)
    with torch.no_grad():
        output = model.reconstruct(images, mask)
        assert model.reconstruct(torch.where(hidden, 5.0, images), mask).prediction.equal(
            output.prediction
        )
        other = model.reconstruct(torch.where(hidden, images, 5.0), mask)
    assert not other.prediction.equal(output.prediction)


def test_sizes__are_those_of_the_recipe():
    with torch.device("meta"):  # sizes alone, no numbers
        model = SimMIM(beit(img_size_px=224, embed_dim=768, depth=12, num_heads=12))
    block = 4 * 768 + (3 * 768**2 + 2 * 768) + (768**2 + 768) + 2 * 768  # norms, qkv, proj, gammas
    block += 768 * 3072 + 3072 + 3072 * 768 + 768
    table = (27 * 27 + 3) * 12
    expected = (16 * 16 * 3 * 768 + 768) + 768 + table + 12 * block + 2 * 768
    assert sum(p.numel() for p in model.encoder.parameters()) == expected == 85_665_360
    assert sum(p.numel() for p in model.decoder.parameters()) == 590_592
    assert model.encoder.stride == model.encoder.patch_size_px == 16


CUT = 0.02  # one deviation
CUT_STD = 0.02 * math.sqrt(1 - 2 * 0.2419707 / 0.6826895)  # of a normal cut at one deviation


def test_init__is_cut_off_at_one_deviation():
    torch.manual_seed(0)
    model = beit(img_size_px=64, embed_dim=256, depth=3, num_heads=4).model
    assert CUT_STD == pytest.approx(0.0108, abs=1e-4)
    scales = {"patch_embed.proj.weight": 1.0, "cls_token": 1.0}
    for i in range(3):
        scales |= {f"blocks.{i}.attn.qkv.weight": 1.0, f"blocks.{i}.mlp.fc1.weight": 1.0}
        scales |= {
            f"blocks.{i}.{part}.weight": 1 / math.sqrt(2 * (i + 1))
            for part in ("attn.proj", "mlp.fc2")
        }
    state = model.state_dict()
    for name, scale in scales.items():
        rel = 0.02 if state[name].numel() > 1000 else 0.2
        assert state[name].std().item() == pytest.approx(CUT_STD * scale, rel=rel), name
        assert state[name].abs().max() <= CUT * scale * 1.0001, name
    assert (state["rel_pos_bias.relative_position_bias_table"] == 0).all()
    for name in state.keys() - scales.keys():
        value = 0.1 if "gamma" in name else float("norm" in name and name.endswith("weight"))
        assert (state[name] == value).all(), name


def test_init__as_in_mae():
    torch.manual_seed(0)
    model = beit(
        img_size_px=64, embed_dim=256, depth=2, num_heads=4, initial_weights="mae", layer_scale=1.0
    ).model
    bounds = {"patch_embed.proj": (256 + 768), "blocks.1.attn.qkv": (256 + 768),
              "blocks.1.attn.proj": (256 + 256), "blocks.1.mlp.fc2": (256 + 1024)}  # fmt: skip
    for name, ends in bounds.items():
        layer, bound = model.get_submodule(name), math.sqrt(6 / ends)
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert layer.bias is None or not layer.bias.any()
    assert all((block.gamma_1 == 1).all() for block in model.blocks)


def test_sine_cosine__by_hand():
    found = sine_cosine(2, 3, 8)
    assert found.shape == (6, 8)
    row, column, slow = 1, 2, 0.01  # frequencies of a width of 8: 1 and 1 / 100
    expected = [
        math.sin(column),
        math.sin(column * slow),
        math.cos(column),
        math.cos(column * slow),
    ]
    expected += [math.sin(row), math.sin(row * slow), math.cos(row), math.cos(row * slow)]
    assert found[row * 3 + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_fixed_positions__are_added_to_patches_and_never_trained():
    encoder = beit(**TINY, fixed_positions=True)
    positions = encoder.model.pos_embed
    assert positions[0, 1:].equal(sine_cosine(4, 4, 8)) and not positions[0, 0].any()
    assert (
        not positions.requires_grad and not encoder.for_finetuning().model.pos_embed.requires_grad
    )
    assert encoder.for_finetuning().model.pos_embed.equal(positions)
    model = SimMIM(encoder)
    mask = torch.eye(2, dtype=torch.bool).expand(2, 2, 2)
    model.reconstruct(images_for(encoder), mask).loss.backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []


@pytest.mark.parametrize("final_norm", [True, False])
@torch.no_grad()
def test_for_finetuning__gives_every_block_the_shared_table(final_norm):
    encoder = vit(final_norm=final_norm)
    tuned = encoder.for_finetuning()
    images = images_for(encoder)
    before_norm = encoder.model.forward_intermediates(images, intermediates_only=True)[-1]
    assert tuned(images).allclose(before_norm, atol=1e-6)

    shared = encoder.model.rel_pos_bias.relative_position_bias_table
    tables = [block.attn.relative_position_bias_table for block in tuned.model.blocks]
    tables[0].add_(1.0)
    assert all(table.equal(shared) for table in tables[1:])
    assert not tables[0].equal(shared)

    assert tuned.model.rel_pos_bias is None
    assert isinstance(tuned.model.norm, nn.Identity)
    assert (tuned.model.fc_norm.weight == 1).all() and (tuned.model.fc_norm.bias == 0).all()
    assert tuned.for_finetuning() is tuned
    common = encoder.model.state_dict().keys() & tuned.model.state_dict().keys()
    assert len(common - {"fc_norm.weight", "fc_norm.bias"}) == 3 + 4 * 15
    for name in common - {"fc_norm.weight", "fc_norm.bias"}:
        assert tuned.model.state_dict()[name].equal(encoder.model.state_dict()[name]), name


def test_for_finetuning__keeps_how_it_is_trained():
    encoder = vit(drop_path_rate=0.3, grad_checkpointing=True, in_chans=4).train()
    tuned = encoder.for_finetuning()
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in tuned.model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert tuned.model.grad_checkpointing and tuned.training
    assert all(p.requires_grad for p in tuned.parameters())
    assert not encoder.eval().for_finetuning().training


@pytest.mark.parametrize("final_norm", [True, False])
def test_pretraining__leaves_no_trainable_parameter_unused(final_norm):
    model = SimMIM(vit(final_norm=final_norm))
    model.reconstruct(
        images_for(model.encoder), torch.eye(2, dtype=torch.bool).expand(2, 2, 2)
    ).loss.backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []
    assert model.encoder.model.rel_pos_bias.relative_position_bias_table.grad.abs().sum() > 0


def test_grad_checkpointing__recomputes_to_equal_gradients():
    gradients, calls = [], []
    for grad_checkpointing in (False, True):
        encoder = vit(grad_checkpointing=grad_checkpointing).train()
        encoder.model.blocks[0].register_forward_pre_hook(lambda *_: calls.append("forward"))
        encoder(images_for(encoder)).square().mean().backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters()})
    assert len(calls) == 1 + 2
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-9)


def test_drop_path__acts_in_training_alone():
    encoder = vit(drop_path_rate=0.5)
    images = images_for(encoder)
    with torch.no_grad():
        steady = encoder(images)
        assert steady.equal(vit()(images))
        encoder.train()
        assert not encoder(images).equal(steady)


@torch.no_grad()
def test_autocast__half_precision_stays_close():
    encoder = vit()
    images = images_for(encoder)
    exact = encoder(images)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(images)
    assert F.mse_loss(half.float(), exact).sqrt() < 0.05 * exact.std()


@pytest.mark.parametrize("finetuned", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"final_norm": False}, {"img_size_px": (32, 96)},
     {"fixed_positions": True, "layer_scale": 1.0}],
    ids=str,
)  # fmt: skip
@torch.no_grad()
def test_hand_off__timm_builds_the_same_from_name_and_arguments(changes, finetuned):
    encoder = vit(**changes)
    if finetuned:
        encoder = encoder.for_finetuning()
    arguments = json.loads(json.dumps(encoder.model_args))
    model = timm.create_model(encoder.architecture, num_classes=0, **arguments).eval()
    model.load_state_dict(encoder.model.state_dict())
    images = images_for(encoder)
    features = encoder.pool(encoder(images))
    torch.testing.assert_close(model(images), features, rtol=0, atol=2e-6)
    assert features.std() > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_size_px": 72}, r"side of 72 px does not divide.* 16 px; sides that do: 64, 80 px"),
        ({"img_size_px": (64, 10)}, "side of 10 px does not divide.*: 16 px"),
        ({"num_heads": 3}, "3 heads do not divide a width of 8"),
        ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ({"num_heads": 0}, "num_heads must be a whole number of at least 1, got 0"),
        ({"patch_size_px": 0}, "patch_size_px must be a whole number of at least 1"),
        ({"in_chans": 0}, "in_chans must be a whole number of at least 1, got 0"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must be a number in \[0, 1\), got 1.0"),
        ({"embed_dim": 6, "fixed_positions": True}, "needs a width that 4 divides.* got 6"),
        ({"layer_scale": 0.0}, "layer_scale must be a number above 0"),
        ({"initial_weights": "xavier"}, "initial_weights must be .*simmim"),
        ({"img_size_px": (64, 64, 64)}, "img_size_px must be .* or a list of 2 whole numbers"),
    ],
    ids=str,
)
def test_beit__refuses(changes, message):
    with pytest.raises(UserError, match=message):
        beit(**(TINY | changes))


def test_backbone_card__of_a_vit():
    card = backbone_card(
        vit(), Training("run", "data", "f00d", 10, 1, 1, "SimMIM", losses=""), ["simmim"]
    )
    assert "A ViT (BEiT) pretrained without labels." in card
    assert "| architecture | width 8, depth 4, patch 16 px |" in card
    assert "- timm\n- vit\n- simmim\n" in card

"""The tables restate the original implementation; `tests/golden` holds its own in full."""

import json
import re
from pathlib import Path

import pytest
import torch
from official_names import to_timm_name
from torch import nn

from ssl_swin.encoders.beit import BeitEncoder, beit, vit_layer_id
from ssl_swin.encoders.swin import SwinEncoder, swin, swin_layer_id
from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM
from ssl_swin.optim.param_groups import (
    is_decayed,
    layer_decay_groups,
    weight_decay_groups,
)
from ssl_swin.tasks.classification import Classification

GOLDEN = Path(__file__).parents[1] / "golden"
DEPTHS = (2, 2, 6, 2)

YES, NO = (True, True), (False, False)
BY_ACCIDENT = (True, False)  # decayed under "official", spared under "intended"
IN_BOTH = {
    "mask_token": NO,
    "patch_embed.proj.weight": YES,
    "patch_embed.proj.bias": NO,
    "patch_embed.norm.weight": NO,
    "patch_embed.norm.bias": NO,
    "norm1.weight": NO,
    "norm1.bias": NO,
    "norm2.weight": NO,
    "norm2.bias": NO,
    "attn.qkv.weight": YES,
    "attn.proj.weight": YES,
    "attn.proj.bias": NO,
    "mlp.fc1.weight": YES,
    "mlp.fc1.bias": NO,
    "mlp.fc2.weight": YES,
    "mlp.fc2.bias": NO,
    "downsample.norm.weight": NO,
    "downsample.norm.bias": NO,
    "downsample.reduction.weight": YES,
    "norm.weight": NO,
    "norm.bias": NO,
    "decoder.0.weight": YES,
    "decoder.0.bias": NO,
}
DECAYED = {
    1: IN_BOTH | {"attn.qkv.bias": NO, "attn.relative_position_bias_table": BY_ACCIDENT},
    2: IN_BOTH
    | {
        "attn.q_bias": NO,
        "attn.v_bias": NO,
        "attn.logit_scale": BY_ACCIDENT,
        "attn.cpb_mlp.0.weight": BY_ACCIDENT,
        "attn.cpb_mlp.0.bias": NO,
        "attn.cpb_mlp.2.weight": BY_ACCIDENT,
    },
}

# Layer, and learning rate relative to the head at a decay of 0.9, of depths 2-2-6-2.
LAYERS = {
    "mask_token": (0, 0.25418658),
    "encoder.model.patch_embed.proj.weight": (0, 0.25418658),
    "encoder.model.patch_embed.norm.bias": (0, 0.25418658),
    "encoder.model.layers.0.blocks.0.norm1.weight": (1, 0.28242954),
    "encoder.model.layers.0.blocks.1.attn.qkv.bias": (2, 0.31381060),
    "encoder.model.layers.1.downsample.reduction.weight": (2, 0.31381060),
    "encoder.model.layers.1.downsample.norm.bias": (2, 0.31381060),
    "encoder.model.layers.1.blocks.0.mlp.fc1.weight": (3, 0.34867844),
    "encoder.model.layers.1.blocks.1.mlp.fc2.bias": (4, 0.38742049),
    "encoder.model.layers.2.downsample.reduction.weight": (4, 0.38742049),
    "encoder.model.layers.2.blocks.0.attn.proj.weight": (5, 0.43046721),
    "encoder.model.layers.2.blocks.5.attn.relative_position_bias_table": (10, 0.729),
    "encoder.model.layers.3.downsample.norm.weight": (10, 0.729),
    "encoder.model.layers.3.blocks.0.norm2.bias": (11, 0.81),
    "encoder.model.layers.3.blocks.1.attn.logit_scale": (12, 0.9),
    "encoder.model.norm.weight": (13, 1.0),
    "head.weight": (13, 1.0),
    "head.bias": (13, 1.0),
}


# Of a ViT: decayed in pretraining under "official" and "intended", and in fine-tuning.
DECAYED_VIT = {
    "mask_token": (True, False, None),
    "cls_token": (False, False, False),
    "patch_embed.proj.weight": (True, True, True),
    "patch_embed.proj.bias": (False, False, False),
    "rel_pos_bias.relative_position_bias_table": (True, False, None),
    "attn.relative_position_bias_table": (None, None, True),
    "gamma_1": (False, False, False),
    "gamma_2": (False, False, False),
    "norm1.weight": (False, False, False),
    "norm1.bias": (False, False, False),
    "norm2.weight": (False, False, False),
    "norm2.bias": (False, False, False),
    "attn.qkv.weight": (True, True, True),
    "attn.q_bias": (False, False, False),
    "attn.v_bias": (False, False, False),
    "attn.proj.weight": (True, True, True),
    "attn.proj.bias": (False, False, False),
    "mlp.fc1.weight": (True, True, True),
    "mlp.fc1.bias": (False, False, False),
    "mlp.fc2.weight": (True, True, True),
    "mlp.fc2.bias": (False, False, False),
    "norm.weight": (False, False, None),
    "norm.bias": (False, False, None),
    "fc_norm.weight": (None, None, False),
    "fc_norm.bias": (None, None, False),
    "decoder.0.weight": (True, True, None),
    "decoder.0.bias": (False, False, None),
    "head.weight": (None, None, True),
    "head.bias": (None, None, False),
}

# Layer, and learning rate relative to the head at a decay of 0.65, of 4 blocks.
LAYERS_VIT = {
    "encoder.model.cls_token": (0, 0.1160290625),
    "encoder.model.patch_embed.proj.weight": (0, 0.1160290625),
    "encoder.model.patch_embed.proj.bias": (0, 0.1160290625),
    "encoder.model.blocks.0.norm1.weight": (1, 0.17850625),
    "encoder.model.blocks.0.attn.relative_position_bias_table": (1, 0.17850625),
    "encoder.model.blocks.1.gamma_2": (2, 0.274625),
    "encoder.model.blocks.2.attn.qkv.weight": (3, 0.4225),
    "encoder.model.blocks.3.mlp.fc2.bias": (4, 0.65),
    "encoder.model.fc_norm.weight": (5, 1.0),
    "head.weight": (5, 1.0),
    "head.bias": (5, 1.0),
}


def kind(name: str) -> str:
    return re.sub(r"^encoder\.model\.|layers\.\d+\.|blocks\.\d+\.", "", name)


def vit() -> BeitEncoder:
    return beit(img_size_px=32, embed_dim=4, depth=4, num_heads=1)


def column(table: dict[str, tuple[bool | None, ...]], index: int) -> dict[str, bool]:
    found = {name: decayed[index] for name, decayed in table.items()}
    return {name: decayed for name, decayed in found.items() if decayed is not None}


def classifier(version: int = 1) -> Classification:
    encoder = swin(
        version=version,
        img_size_px=64,
        window_size=4,
        embed_dim=4,
        depths=DEPTHS,
        num_heads=[1, 1, 1, 1],
    )
    return Classification(encoder, classes=[str(label) for label in range(3)])


def by_name(model: nn.Module, groups: list[dict]) -> dict[str, dict]:
    """Maps each parameter's name to the one group that holds it."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    pairs = [(names[id(parameter)], group) for group in groups for parameter in group["params"]]
    assert len(dict(pairs)) == len(pairs), "a parameter is in two groups"
    return dict(pairs)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("policy", ["official", "intended"])
def test_weight_decay_groups__every_kind_of_parameter(tiny_encoder, version, policy):
    model = SimMIM(tiny_encoder(version=version))
    groups = weight_decay_groups(model, lr=1e-3, weight_decay=0.05, policy=policy)
    group_of = by_name(model, groups)

    column = ("official", "intended").index(policy)
    expected = {name: decayed[column] for name, decayed in DECAYED[version].items()}
    assert {kind(name): group["weight_decay"] > 0 for name, group in group_of.items()} == expected
    assert group_of.keys() == dict(model.named_parameters()).keys()
    for name, group in group_of.items():
        decayed = expected[kind(name)]
        assert group["weight_decay"] == (0.05 if decayed else 0.0), name
        assert group["name"] == ("decay" if decayed else "no_decay")
        assert group["lr"] == 1e-3
        assert "lr_scale" not in group
    assert len(groups) == 2


@pytest.mark.parametrize(("policy", "index"), [("official", 0), ("intended", 1)])
def test_weight_decay_groups__every_kind_of_parameter_of_a_vit(policy, index):
    model = SimMIM(vit())
    groups = weight_decay_groups(model, lr=1e-3, weight_decay=0.05, policy=policy)
    group_of = by_name(model, groups)
    assert group_of.keys() == dict(model.named_parameters()).keys()
    found = {(kind(name), group["weight_decay"] == 0.05) for name, group in group_of.items()}
    assert found == set(column(DECAYED_VIT, index).items())


@pytest.mark.parametrize("name", ["pos.absolute_pos_embed", "cls_token"])
@pytest.mark.parametrize("policy", ["official", "intended"])
@pytest.mark.parametrize("encoder", [SwinEncoder, BeitEncoder])
@pytest.mark.parametrize("phase", ["pretraining", "finetuning"])
def test_is_decayed__position_embeddings_are_spared(name, policy, encoder, phase):
    embedding = nn.Parameter(torch.zeros(1, 4, 8))
    assert not is_decayed(name, embedding, policy, encoder=encoder, phase=phase)


def test_is_decayed__the_objective_names_its_own():
    weight = nn.Parameter(torch.zeros(4, 8))
    rule = {"encoder": SwinEncoder, "phase": "pretraining"}
    assert is_decayed("queue.keys", weight, "intended", **rule)
    spared = frozenset({"queue.keys"})
    assert not is_decayed("queue.keys", weight, "intended", **rule, undecayed=spared)
    assert is_decayed("queue.values", weight, "intended", **rule, undecayed=spared)


def test_is_decayed__unknown_policy():
    with pytest.raises(UserError, match=r"\('official', 'intended'\), got 'none'"):
        weight = nn.Parameter(torch.zeros(2, 2))
        is_decayed("head.weight", weight, "none", encoder=SwinEncoder, phase="pretraining")


def test_weight_decay_groups__leave_out_frozen_parameters_and_empty_groups(tiny_encoder):
    model = SimMIM(tiny_encoder())
    model.encoder.requires_grad_(False)
    model.decoder.requires_grad_(False)
    (group,) = weight_decay_groups(model, lr=1.0, weight_decay=0.1, policy="intended")
    assert group["name"] == "no_decay"
    assert [id(p) for p in group["params"]] == [id(model.mask_token)]


def test_layer_decay_groups__leave_out_frozen_parameters_and_empty_groups():
    model = classifier()
    model.encoder.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    (group,) = layer_decay_groups(model, lr=1.0, layer_decay=0.9, weight_decay=0.1)
    assert [id(p) for p in group["params"]] == [id(model.head.weight)]


@pytest.mark.parametrize(("name", "expected"), LAYERS.items())
def test_swin_layer_id__by_hand(name, expected):
    assert swin_layer_id(name, DEPTHS) == expected[0]


@pytest.mark.parametrize("version", [1, 2])
def test_layer_decay_groups__rates_by_hand(version):
    model = classifier(version)
    groups = layer_decay_groups(model, lr=5e-3, layer_decay=0.9, weight_decay=0.05)
    group_of = by_name(model, groups)
    assert group_of.keys() == dict(model.named_parameters()).keys()
    checked = group_of.keys() & LAYERS.keys()
    assert len(checked) >= 15
    for name in checked:
        layer, scale = LAYERS[name]
        assert group_of[name]["lr"] == pytest.approx(5e-3 * scale, rel=1e-7), name
        assert group_of[name]["name"].startswith(f"layer_{layer}_")
    for name, group in group_of.items():
        decayed = DECAYED[version].get(kind(name), (None, name == "head.weight"))[1]
        assert group["weight_decay"] == (0.05 if decayed else 0.0), name
        assert group["name"].endswith("_decay" if decayed else "_no_decay")
        assert "lr_scale" not in group
    assert len({group["name"] for group in groups}) == len(groups) == 2 * 14


@pytest.mark.parametrize(("name", "layer"), [("norm.weight", 5), ("mask_token", 0)])
def test_vit_layer_id__of_what_fine_tuning_has_not(name, layer):
    assert vit_layer_id(name, (4,)) == layer
    assert vit_layer_id("encoder.model.rel_pos_bias.relative_position_bias_table", (4,)) == 5


def test_layer_decay_groups__rates_of_a_vit_by_hand():
    model = Classification(vit(), classes=[str(label) for label in range(3)])
    groups = layer_decay_groups(model, lr=5e-3, layer_decay=0.65, weight_decay=0.05)
    group_of = by_name(model, groups)
    assert group_of.keys() == dict(model.named_parameters()).keys() >= LAYERS_VIT.keys()
    for name, (layer, scale) in LAYERS_VIT.items():
        assert group_of[name]["lr"] == pytest.approx(5e-3 * scale, rel=1e-7), name
        assert group_of[name]["name"].startswith(f"layer_{layer}_")
    found = {(kind(name), group["weight_decay"] == 0.05) for name, group in group_of.items()}
    assert found == set(column(DECAYED_VIT, 2).items())
    assert {group["name"] for group in groups if group["weight_decay"]} == {
        f"layer_{layer}_decay" for layer in range(6)
    }


def test_layer_decay_groups__equal_the_original_for_every_parameter():
    table = json.loads((GOLDEN / "layer_decay_swin.json").read_text())
    model = classifier()
    groups = layer_decay_groups(
        model,
        lr=1.0,
        layer_decay=table["layer_decay"],
        weight_decay=table["weight_decay"],
    )

    def our_name(official: str) -> str:
        return (
            official if official.startswith("head.") else f"encoder.model.{to_timm_name(official)}"
        )

    ours = {name: (g["lr"], g["weight_decay"]) for name, g in by_name(model, groups).items()}
    official = {
        our_name(name): (pytest.approx(entry["lr_scale"], rel=1e-12), entry["weight_decay"])
        for name, entry in table["params"].items()
    }
    assert ours == official


def test_layer_decay_groups__take_blocks_of_an_objective_for_none_of_the_encoder():
    model = SparseSimMIM(vit())
    groups = layer_decay_groups(model, lr=1.0, layer_decay=0.5, weight_decay=0.05)
    group_of = by_name(model, groups)
    (block, *_) = [name for name in group_of if ".blocks.0." in name and "encoder." not in name]
    assert group_of[block]["lr"] == 1.0
    of_encoder = {group_of[name]["lr"] for name in group_of if name.startswith("encoder.")}
    assert of_encoder == {0.5**layer for layer in range(6)}


def test_layer_decay_groups__one_turns_it_off():
    groups = layer_decay_groups(classifier(), lr=3e-4, layer_decay=1.0, weight_decay=0.05)
    assert {group["lr"] for group in groups} == {3e-4}


@pytest.mark.parametrize("layer_decay", [0.0, -0.9, 1.1])
def test_layer_decay_groups__out_of_range(layer_decay):
    with pytest.raises(UserError, match=rf"in \(0, 1\], got {layer_decay}"):
        layer_decay_groups(classifier(), lr=1.0, layer_decay=layer_decay, weight_decay=0.0)

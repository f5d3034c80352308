import re

import pytest
import torch

from ssl_swin.commands import import_
from ssl_swin.weights.formats.exporting import export_state
from ssl_swin.weights.formats.key_maps import to_theirs
from ssl_swin.weights.formats.known_formats import FORMATS, NAMES, format_for, recognise

BLOCK = "layers.2.blocks.1"
# By hand, from the facts about each implementation: format, our name, its name (without prefix).
BY_HAND = [
    ("simmim", f"{BLOCK}.attn.qkv.weight", f"{BLOCK}.attn.qkv.weight"),
    ("simmim", "layers.3.downsample.norm.bias", "layers.2.downsample.norm.bias"),
    ("simmim", "mask_token", "mask_token"),
    ("swin", "head.fc.weight", "head.weight"),
    ("timm", "layers.3.downsample.norm.bias", "layers.3.downsample.norm.bias"),
    ("detectron2", f"{BLOCK}.mlp.fc1.bias", f"{BLOCK}.mlp.fc1.bias"),
    ("detectron2", "layers.1.downsample.reduction.weight", "layers.0.downsample.reduction.weight"),
    ("detectron2", "norm.weight", "norm3.weight"),
    ("detectron2", "patch_embed.norm.bias", "patch_embed.norm.bias"),
    ("openmmlab", "patch_embed.proj.weight", "patch_embed.projection.weight"),
    ("openmmlab", f"{BLOCK}.attn.proj.bias", "stages.2.blocks.1.attn.w_msa.proj.bias"),
    ("openmmlab", f"{BLOCK}.mlp.fc1.weight", "stages.2.blocks.1.ffn.layers.0.0.weight"),
    ("openmmlab", f"{BLOCK}.mlp.fc2.weight", "stages.2.blocks.1.ffn.layers.1.weight"),
    ("openmmlab", "layers.1.downsample.norm.weight", "stages.0.downsample.norm.weight"),
    ("openmmlab", "norm.bias", "norm3.bias"),
    ("openmmlab", "decoder.0.weight", "neck.decoder.0.weight"),
    ("torchvision", "patch_embed.proj.weight", "features.0.0.weight"),
    ("torchvision", "patch_embed.norm.weight", "features.0.2.weight"),
    ("torchvision", f"{BLOCK}.mlp.fc2.weight", "features.5.1.mlp.3.weight"),
    ("torchvision", "layers.2.downsample.norm.bias", "features.4.norm.bias"),
    (
        "huggingface",
        f"{BLOCK}.attn.relative_position_bias_table",
        "encoder.layers.2.blocks.1.attention.self.relative_position_bias_table",
    ),
    ("huggingface", f"{BLOCK}.mlp.fc2.bias", "encoder.layers.2.blocks.1.output.dense.bias"),
    ("huggingface", "norm.weight", "layernorm.weight"),
]


@pytest.mark.parametrize(("name", "ours", "theirs"), BY_HAND)
def test_rules__by_hand(name, ours, theirs, encoder):
    renamed = to_theirs(format_for(name, encoder).rules, {ours: torch.ones(4)}).state
    assert list(renamed) == [theirs]


# Every tensor of one block, merging and frame, of the two that cannot be installed for a test.
DETECTRON2 = {
    "patch_embed.proj.weight": (8, 3, 4, 4),
    "patch_embed.proj.bias": (8,),
    "patch_embed.norm.weight": (8,),
    "patch_embed.norm.bias": (8,),
    "layers.0.blocks.1.norm1.weight": (8,),
    "layers.0.blocks.1.norm1.bias": (8,),
    "layers.0.blocks.1.attn.relative_position_bias_table": (49, 1),
    "layers.0.blocks.1.attn.relative_position_index": (16, 16),
    "layers.0.blocks.1.attn.qkv.weight": (24, 8),
    "layers.0.blocks.1.attn.qkv.bias": (24,),
    "layers.0.blocks.1.attn.proj.weight": (8, 8),
    "layers.0.blocks.1.attn.proj.bias": (8,),
    "layers.0.blocks.1.norm2.weight": (8,),
    "layers.0.blocks.1.norm2.bias": (8,),
    "layers.0.blocks.1.mlp.fc1.weight": (32, 8),
    "layers.0.blocks.1.mlp.fc1.bias": (32,),
    "layers.0.blocks.1.mlp.fc2.weight": (8, 32),
    "layers.0.blocks.1.mlp.fc2.bias": (8,),
    "layers.0.downsample.reduction.weight": (16, 32),
    "layers.0.downsample.norm.weight": (32,),
    "layers.0.downsample.norm.bias": (32,),
    "norm3.weight": (64,),
    "norm3.bias": (64,),
}
TO_OPENMMLAB = (
    ("layers.", "stages."),
    (".attn.", ".attn.w_msa."),
    (".proj.", ".projection."),
    ("w_msa.projection", "w_msa.proj"),
    ("mlp.fc1", "ffn.layers.0.0"),
    ("mlp.fc2", "ffn.layers.1"),
)
OTHER_BLOCKS = r"(layers|stages)\.(0\.blocks\.0|[1-3]\.blocks|[1-3]\.downsample)\."


def in_openmmlab(name: str) -> str:
    for theirs, new in TO_OPENMMLAB:
        name = name.replace(theirs, new)
    return f"backbone.{name}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("detectron2", DETECTRON2),
        ("openmmlab", {in_openmmlab(name): shape for name, shape in DETECTRON2.items()}),
    ],
)
def test_export_state__has_the_names_and_shapes_there(name, expected, encoder):
    state, _ = export_state(encoder, {}, format_for(name, encoder))
    shapes = {n: tuple(t.shape) for n, t in state.items() if not re.search(OTHER_BLOCKS, n)}
    assert shapes == expected


def test_recognise__knows_nothing_of_others():
    assert recognise({}) is None
    assert recognise({"conv1.weight": torch.ones(1)}) is None


def test_formats__are_those_of_the_command():
    assert import_.FORMATS == NAMES


def test_formats__have_different_names_for_each_kind():
    pairs = [(known.name, kind) for known in FORMATS for kind in known.kinds]
    assert len(pairs) == len(set(pairs))

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_swin.encoders.beit import beit
from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.weights.formats.official_beit import beit_architecture

TINY: dict[str, Any] = {"img_size_px": 64, "embed_dim": 8, "depth": 2, "num_heads": 2}

OF_A_BLOCK = (
    "norm1.weight norm1.bias norm2.weight norm2.bias gamma_1 gamma_2 attn.q_bias attn.v_bias "
    "attn.qkv.weight attn.proj.weight attn.proj.bias "
    "mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias"
).split()
# Every tensor of the original's SimMIM with a ViT of two blocks.
ORIGINAL = {
    "encoder.cls_token",
    "encoder.mask_token",
    "encoder.patch_embed.proj.weight",
    "encoder.patch_embed.proj.bias",
    "encoder.rel_pos_bias.relative_position_bias_table",
    *(f"encoder.blocks.{block}.{part}" for block in range(2) for part in OF_A_BLOCK),
    "encoder.norm.weight",
    "encoder.norm.bias",
    "decoder.0.weight",
    "decoder.0.bias",
}


INDEX = "encoder.rel_pos_bias.relative_position_index"


def to_official(name: str) -> str:
    return (
        "encoder.mask_token" if name == "mask_token" else name.replace("encoder.model.", "encoder.")
    )


def official_state(**changes: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = SimMIM(beit(**(TINY | changes)))
    state = {to_official(name): torch.randn_like(t) for name, t in model.state_dict().items()}
    return state | {INDEX: torch.zeros(17, 17)}


def test_official_state__is_all_of_the_original():
    assert official_state().keys() - {INDEX} == ORIGINAL


@pytest.mark.parametrize(
    "changes",
    [{}, {"in_chans": 5, "patch_size_px": 8}, {"depth": 11, "final_norm": True},
     {"fixed_positions": True}],
    ids=str,
)  # fmt: skip
def test_beit_architecture__builds_the_model_that_the_state_fits(changes):
    state = official_state(**changes)
    arguments = beit_architecture(state)
    expected = {"patch_size_px": 16, "in_chans": 3, "final_norm": True} | TINY | changes
    expected = {"shared_position_bias": True, "fixed_positions": False} | expected
    assert arguments == expected

    model = SimMIM(beit(**arguments))
    shapes = {to_official(name): tensor.shape for name, tensor in model.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in state.items() if name != INDEX}


def test_beit_architecture__sees_that_there_is_no_final_norm():
    state = {name: t for name, t in official_state().items() if "encoder.norm" not in name}
    assert beit_architecture(state)["final_norm"] is False


def test_beit_architecture__of_a_fine_tuned_vit():
    encoder = beit(**TINY).for_finetuning()
    state = {f"encoder.{name}": tensor for name, tensor in encoder.model.state_dict().items()}
    arguments = beit_architecture(state)
    assert not arguments["shared_position_bias"] and not arguments["final_norm"]
    beit(**arguments).model.load_state_dict(encoder.model.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.patch_embed.proj.weight": None}, "patch_embed.proj.weight is missing"),
        ({"encoder.patch_embed.proj.weight": (8, 3)}, r"has shape \(8, 3\), not 4 dimensions"),
        ({"encoder.rel_pos_bias.relative_position_bias_table": None}, "bias_table is missing"),
        ({"encoder.rel_pos_bias.relative_position_bias_table": (50, 2)}, "has 50 rows"),
        ({"encoder.rel_pos_bias.relative_position_bias_table": (39, 2)}, "has 39 rows"),
    ],
    ids=str,
)
def test_beit_architecture__refuses(change, message):
    ((name, shape),) = change.items()
    state = official_state()
    del state[name]
    if shape is not None:
        state[name] = torch.zeros(shape)
    with pytest.raises(UserError, match=message):
        beit_architecture(state)

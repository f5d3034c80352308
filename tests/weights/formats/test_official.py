import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_swin.encoders.sizes import stage_window_sizes
from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.weights.formats.official import (
    load_simmim,
    simmim_from_state_dict,
    to_official_name,
    to_official_simmim_name,
    to_simmim_name,
    to_timm_name,
)

GOLDEN = Path(__file__).parents[2] / "golden"
SIZES = {"img_size_px": 64, "window_size": 4}

State = dict[str, Tensor]


def official_state(version: int) -> State:
    """The parameters of the original's own small model: 64 px, windows 4, 4, 4 and 2."""
    arrays = np.load(GOLDEN / f"swin_v{version}.npz")
    return {
        key.removeprefix("param/"): torch.from_numpy(arrays[key])
        for key in arrays
        if key.startswith("param/")
    }


def with_tables(state: State, kind: str, windows: tuple[int, ...] = (4, 4, 4, 2)) -> State:
    """Adds the tables that the original stores beside the parameters, of the right shapes."""
    attentions = {re.sub(r"\.attn\..*", ".attn", name) for name in state if ".attn." in name}
    tables = {}
    for attention in attentions:
        window = windows[int(attention.split(".")[2])]
        side = 2 * window - 1
        shape = {
            "relative_coords_table": (1, side, side, 2),
            "relative_position_index": (window**2, window**2),
        }[kind]
        tables[f"{attention}.{kind}"] = torch.zeros(shape)
    tables["encoder.layers.1.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    return {**state, **tables}


def without(state: State, part: str) -> State:
    return {name: tensor for name, tensor in state.items() if part not in name}


@pytest.mark.parametrize(
    ("official", "timm_name"),
    [
        ("layers.0.downsample.reduction.weight", "layers.1.downsample.reduction.weight"),
        ("layers.2.downsample.norm.bias", "layers.3.downsample.norm.bias"),
        ("layers.2.blocks.17.attn.qkv.weight", "layers.2.blocks.17.attn.qkv.weight"),
        ("layers.0.blocks.0.attn.rpe_mlp.0.bias", "layers.0.blocks.0.attn.cpb_mlp.0.bias"),
        ("patch_embed.norm.weight", "patch_embed.norm.weight"),
        ("norm.bias", "norm.bias"),
        ("head.weight", "head.fc.weight"),
        ("layers.0.blocks.1.attn_mask", None),
        ("layers.0.blocks.1.attn.relative_position_index", None),
        ("layers.0.blocks.1.attn.relative_coords_table", None),
    ],
)
def test_to_timm_name__by_hand(official, timm_name):
    assert to_timm_name(official) == timm_name


@pytest.mark.parametrize("version", [1, 2])
def test_to_official_name__inverts_to_timm_name(version):
    encoder = swin(
        version=version, embed_dim=8, depths=(1, 2, 2, 1), num_heads=(1, 2, 2, 4), **SIZES
    )
    timm_names = [*encoder.model.state_dict(), "head.fc.weight", "head.fc.bias"]
    officials = [to_official_name(name) for name in timm_names]

    assert len(set(officials)) == len(timm_names)
    assert [to_timm_name(name) for name in officials] == timm_names


@pytest.mark.parametrize("version", [1, 2])
def test_to_official_simmim_name__inverts_to_simmim_name_on_the_original_names(version):
    officials = list(official_state(version))
    ours = [to_simmim_name(name) for name in officials]

    assert [to_official_simmim_name(name) for name in ours] == officials


@pytest.mark.parametrize("version", [1, 2])
def test_simmim_from_state_dict__puts_every_tensor_in_its_place(version):
    state = official_state(version)

    model = simmim_from_state_dict(state, **SIZES)

    loaded = {to_official_simmim_name(name): t for name, t in model.state_dict().items()}
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0)


def test_simmim_from_state_dict__infers_the_architecture():
    encoder = simmim_from_state_dict(official_state(1), img_size_px=64).encoder
    assert encoder.version == 1
    assert encoder.model_args == {
        "img_size": (64, 64),
        "patch_size": 4,
        "in_chans": 3,
        "window_size": 4,
        "embed_dim": 8,
        "depths": (1, 2, 2, 1),
        "num_heads": (1, 2, 2, 4),
    }


@pytest.mark.parametrize("version", [1, 2])
def test_simmim_from_state_dict__infers_another_architecture(version):
    encoder = swin(
        version=version,
        img_size_px=48,
        window_size=3,
        embed_dim=6,
        depths=(1, 1, 3),
        num_heads=(1, 3, 2),
        patch_size_px=2,
        in_chans=5,
    )
    state = {to_official_simmim_name(k): t for k, t in SimMIM(encoder).state_dict().items()}

    inferred = simmim_from_state_dict(state, img_size_px=48, window_size=3).encoder

    assert (inferred.version, inferred.stride) == (version, 8)
    assert inferred.model_args == encoder.model_args


@pytest.mark.parametrize("kind", ["relative_coords_table", "relative_position_index"])
def test_simmim_from_state_dict__takes_the_window_of_v2_from_its_tables(kind):
    state = with_tables(official_state(2), kind)
    encoder = simmim_from_state_dict(state, img_size_px=64).encoder
    assert encoder.model_args["window_size"] == 4
    assert encoder.model_args["pretrained_window_sizes"] == (4, 4, 4, 2)


def test_simmim_from_state_dict__takes_the_window_of_v2_from_the_config():
    config = {"MODEL": {"SWINV2": {"WINDOW_SIZE": 4}}, "DATA": {"IMG_SIZE": 64}}
    model = simmim_from_state_dict(official_state(2), img_size_px=64, config=config)
    assert model.encoder.model_args["window_size"] == 4


def test_simmim_from_state_dict__needs_the_window_of_v2_from_somewhere():
    config = {"MODEL": {"TYPE": "swinv2"}}
    with pytest.raises(UserError, match="give the window_size"):
        simmim_from_state_dict(official_state(2), img_size_px=64, config=config)


def test_simmim_from_state_dict__reads_the_names_of_the_released_v2_files():
    state = official_state(2)
    released = {name.replace("cpb_mlp", "rpe_mlp"): tensor for name, tensor in state.items()}

    model = simmim_from_state_dict(released, **SIZES)

    name = "layers.2.blocks.1.attn.cpb_mlp.2.weight"
    expected = state[f"encoder.{name}"]
    torch.testing.assert_close(model.state_dict()[f"encoder.model.{name}"], expected)


def test_simmim_from_state_dict__passes_on_the_window_of_the_target():
    model = simmim_from_state_dict(official_state(2), normalize_target_window_px=15, **SIZES)
    assert model.normalize_target_window_px == 15


@pytest.mark.parametrize("version", [1, 2])
def test_simmim_from_state_dict__refuses_another_window_and_names_both(version):
    state = with_tables(official_state(version), "relative_position_index")
    with pytest.raises(UserError, match=r"windows of 4, 4, 4, 2 tokens.*a window of 8 leads to 8"):
        simmim_from_state_dict(state, img_size_px=64, window_size=8)


@pytest.mark.parametrize("version", [1, 2])
def test_simmim_from_state_dict__refuses_a_size_that_changes_the_windows(version):
    state = with_tables(official_state(version), "relative_coords_table")
    assert stage_window_sizes((128, 128), 4, 4, num_stages=4) == (4, 4, 4, 4)
    with pytest.raises(UserError, match=r"4, 4, 4, 2 tokens, but 128 px .* leads to 4, 4, 4, 4"):
        simmim_from_state_dict(state, img_size_px=128)


def test_simmim_from_state_dict__lists_missing_tensors():
    state = without(official_state(1), "layers.2.blocks.0.norm1")
    expected = r"2 missing: encoder\.layers\.2\.blocks\.0\.norm1\.weight, .*norm1\.bias"
    with pytest.raises(UserError, match=expected):
        simmim_from_state_dict(state, **SIZES)


def test_simmim_from_state_dict__lists_unexpected_tensors_up_to_eight():
    surplus = {f"encoder.surplus_{i}": torch.zeros(1) for i in range(11)}
    with pytest.raises(UserError, match=r"11 unexpected: .*surplus_7 and 3 more") as caught:
        simmim_from_state_dict({**official_state(1), **surplus}, **SIZES)
    assert "surplus_8" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("decoder.0.weight", (16 * 16 * 3, 64, 1, 1)),  # of a stride of 16
        ("decoder.0.bias", (32 * 32,)),  # of one channel
        ("encoder.mask_token", (1, 1, 16)),
    ],
)
def test_simmim_from_state_dict__lists_wrong_shapes(name, shape):
    state = {**official_state(1), name: torch.zeros(shape)}
    expected = re.escape(f"1 of the wrong shape: {name} {shape} instead of")
    with pytest.raises(UserError, match=expected):
        simmim_from_state_dict(state, **SIZES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder.patch_embed.proj.weight", "patch_embed.proj.weight is missing"),
        ("encoder.layers.1.blocks.0.attn.relative_position_bias_table", "bias_table is missing"),
    ],
)
def test_simmim_from_state_dict__needs_what_tells_the_architecture(name, message):
    with pytest.raises(UserError, match=message):
        simmim_from_state_dict(without(official_state(1), name), **SIZES)


def test_simmim_from_state_dict__refuses_a_tensor_of_other_dimensions():
    state = {**official_state(1), "encoder.patch_embed.proj.weight": torch.zeros(8, 48)}
    with pytest.raises(UserError, match=r"proj\.weight has shape \(8, 48\), not 4 dimensions"):
        simmim_from_state_dict(state, **SIZES)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["encoder.mask_token", "encoder.blocks.0.norm1.weight"], "SimMIM with a ViT"),
        (["layers.0.blocks.0.norm1.weight", "head.weight"], "without SimMIM's mask token"),
        (["encoder.layers.0.blocks.0.norm1.weight"], "without SimMIM's mask token"),
        (["encoder.model.layers.0.blocks.0.norm1.weight", "mask_token"], "of this project"),
        (["cls_token", "blocks.0.norm1.weight"], "looks like a ViT"),
        (["conv1.weight", "fc.bias"], "its tensors are conv1.weight, fc.bias"),
    ],
)
def test_simmim_from_state_dict__says_what_another_checkpoint_looks_like(names, message):
    with pytest.raises(UserError, match=message):
        simmim_from_state_dict({name: torch.zeros(1) for name in names}, **SIZES)


def test_load_simmim__reads_a_checkpoint_of_the_original_layout(tmp_path):
    path = tmp_path / "ckpt_epoch_99.pth"
    state = with_tables(official_state(2), "relative_coords_table")
    torch.save({"model": state, "epoch": 99, "optimizer": {"state": {}}}, path)

    model = load_simmim(path, img_size_px=64, normalize_target_window_px=15)

    torch.testing.assert_close(model.mask_token.data, state["encoder.mask_token"])
    assert model.normalize_target_window_px == 15


def test_load_simmim__uses_the_config_in_the_file(tmp_path):
    path = tmp_path / "ckpt_epoch_99.pth"
    config = {"MODEL": {"SWINV2": {"WINDOW_SIZE": 4}}, "DATA": {"IMG_SIZE": 64}}
    torch.save({"model": official_state(2), "config": config}, path)
    assert load_simmim(path, img_size_px=64).encoder.model_args["window_size"] == 4


def test_load_simmim__reads_a_bare_state_dict(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(official_state(1), path)
    model = load_simmim(path, img_size_px=64)
    torch.testing.assert_close(model.mask_token.data, official_state(1)["encoder.mask_token"])


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model": 3}, {"model": {"weight": [1.0]}}])
def test_load_simmim__names_a_file_without_weights(tmp_path, content):
    path = tmp_path / "empty.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"empty\.pth: .* no dictionary of tensors called 'model'"):
        load_simmim(path, img_size_px=64)

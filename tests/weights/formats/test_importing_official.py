"""Checkpoints of the original SimMIM, imported as users import them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from official_names import (
    save_official,
    tiny_state,
    to_official_name,
    to_official_simmim_name,
    to_simmim_name,
    to_timm_name,
)
from torch import Tensor

from ssl_swin.encoders.sizes import stage_window_sizes
from ssl_swin.encoders.swin import swin
from ssl_swin.errors import UserError
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.weights.formats.importing import ImportedBackbone, import_weights

SIZES = {"img_size_px": 64, "window_size": 4}

State = dict[str, Tensor]
Import = Callable[..., ImportedBackbone]


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """Writes a state dict as a checkpoint of the original, and imports that."""

    def write_and_import(
        state: State, *, config: dict[str, Any] | None = None, **sizes: Any
    ) -> ImportedBackbone:
        path = save_official(tmp_path / "ckpt_epoch_99.pth", state, config)
        return import_weights(path, **sizes)[0]

    return write_and_import


def with_tables(state: State, kind: str) -> State:
    """Adds the tables that the original stores beside the parameters, computed by timm."""
    encoder = swin(
        version=2 if any("logit_scale" in name for name in state) else 1,
        embed_dim=8,
        depths=(1, 2, 2, 1),
        num_heads=(1, 2, 2, 4),
        **SIZES,
    )
    tables = {
        f"encoder.{to_official_name(name)}": table
        for name, table in encoder.model.named_buffers()
        if name.endswith(kind)
    }
    assert tables
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
    officials = list(tiny_state(version))
    ours = [to_simmim_name(name) for name in officials]

    assert [to_official_simmim_name(name) for name in ours] == officials


@pytest.mark.parametrize("version", [1, 2])
def test_import_official__puts_every_tensor_in_its_place(imported: Import, version):
    state = tiny_state(version)

    model = imported(state, **SIZES).simmim

    loaded = {to_official_simmim_name(name): t for name, t in model.state_dict().items()}
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0)


def test_import_official__infers_the_architecture(imported: Import):
    encoder = imported(tiny_state(1), img_size_px=64).encoder
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
def test_import_official__infers_another_architecture(imported: Import, version):
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

    moments = {"mean": [0.5] * 5, "std": [0.5] * 5}
    inferred = imported(state, img_size_px=48, window_size=3, **moments).encoder

    assert (inferred.version, inferred.stride) == (version, 8)
    assert inferred.model_args == encoder.model_args


@pytest.mark.parametrize("kind", ["relative_coords_table", "relative_position_index"])
def test_import_official__takes_the_window_of_v2_from_its_tables(imported: Import, kind):
    encoder = imported(with_tables(tiny_state(2), kind), img_size_px=64).encoder
    assert encoder.model_args["window_size"] == 4
    assert encoder.model_args["pretrained_window_sizes"] == (4, 4, 4, 2)


def test_import_official__takes_size_and_window_of_v2_from_the_config(imported: Import):
    config = {"MODEL": {"SWINV2": {"WINDOW_SIZE": 4}}, "DATA": {"IMG_SIZE": 64}}
    encoder = imported(tiny_state(2), config=config).encoder
    assert encoder.img_size_px == (64, 64)
    assert encoder.model_args["window_size"] == 4


def test_import_official__needs_the_window_of_v2_from_somewhere(imported: Import):
    config = {"MODEL": {"TYPE": "swinv2"}}
    with pytest.raises(UserError, match=r"ckpt_epoch_99\.pth: .* give the window_size"):
        imported(tiny_state(2), img_size_px=64, config=config)


def test_import_official__reads_the_names_of_the_released_v2_files(imported: Import):
    state = tiny_state(2)
    released = {name.replace("cpb_mlp", "rpe_mlp"): tensor for name, tensor in state.items()}

    model = imported(released, **SIZES).simmim

    name = "layers.2.blocks.1.attn.cpb_mlp.2.weight"
    expected = state[f"encoder.{name}"]
    assert model.state_dict()[f"encoder.model.{name}"].equal(expected)


@pytest.mark.parametrize("version", [1, 2])
def test_import_official__refuses_another_window_and_names_both(imported: Import, version):
    state = with_tables(tiny_state(version), "relative_position_index")
    with pytest.raises(UserError, match=r"windows of 4, 4, 4, 2 tokens.*a window of 8 leads to 8"):
        imported(state, img_size_px=64, window_size=8)


@pytest.mark.parametrize("version", [1, 2])
def test_import_official__refuses_a_size_that_changes_the_windows(imported: Import, version):
    state = with_tables(tiny_state(version), "relative_position_index")
    assert stage_window_sizes((128, 128), 4, 4, num_stages=4) == (4, 4, 4, 4)
    with pytest.raises(UserError, match=r"4, 4, 4, 2 tokens, but 128x128 px .* to 4, 4, 4, 4"):
        imported(state, img_size_px=128)


def test_import_official__lists_missing_tensors(imported: Import):
    state = without(tiny_state(1), "layers.2.blocks.0.norm1")
    expected = r"2 missing: layers\.2\.blocks\.0\.norm1\.weight, .*norm1\.bias"
    with pytest.raises(UserError, match=expected):
        imported(state, **SIZES)


def test_import_official__lists_unexpected_tensors_up_to_four(imported: Import):
    surplus = {f"encoder.surplus_{i}": torch.zeros(1) for i in range(11)}
    with pytest.raises(UserError, match=r"11 unexpected: .*surplus_3 and 7 more") as caught:
        imported({**tiny_state(1), **surplus}, **SIZES)
    assert "surplus_4" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("decoder.0.weight", (16 * 16 * 3, 64, 1, 1)),  # of a stride of 16
        ("decoder.0.bias", (32 * 32,)),  # of one channel
        ("encoder.mask_token", (1, 1, 16)),
    ],
)
def test_import_official__lists_wrong_shapes(imported: Import, name, shape):
    state = {**tiny_state(1), name: torch.zeros(shape)}
    expected = re.escape(f"1 of the wrong shape: {name} {shape} instead of")
    with pytest.raises(UserError, match=expected):
        imported(state, **SIZES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("encoder.patch_embed.proj.weight", "patch_embed.proj.weight is missing"),
        ("encoder.layers.1.blocks.0.attn.relative_position_bias_table", "bias_table is missing"),
    ],
)
def test_import_official__needs_what_tells_the_architecture(imported: Import, name, message):
    with pytest.raises(UserError, match=message):
        imported(without(tiny_state(1), name), **SIZES)


def test_import_official__refuses_a_tensor_of_other_dimensions(imported: Import):
    state = {**tiny_state(1), "encoder.patch_embed.proj.weight": torch.zeros(8, 48)}
    with pytest.raises(UserError, match=r"proj\.weight has shape \(8, 48\), not 4 dimensions"):
        imported(state, **SIZES)


def test_import_official__of_half_a_head_is_no_simmim_model(tmp_path):
    path = save_official(tmp_path / "ckpt.pth", without(tiny_state(1), "decoder.0.bias"))
    imported, report = import_weights(path, **SIZES)
    assert imported.simmim is None
    assert [entry.name for entry in report.missing] == ["decoder.0.bias"]
    reasons = {entry.name: entry.reason for entry in report.dropped}
    assert reasons["encoder.mask_token"] == "of no use without decoder.0.bias"


def test_import_official__reads_a_bare_state_dict(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(tiny_state(1), path)
    model = import_weights(path, img_size_px=64)[0].simmim
    assert model.mask_token.equal(tiny_state(1)["encoder.mask_token"])


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model": 3}, {"model": {"weight": [1.0]}}])
def test_import_official__names_a_file_without_weights(tmp_path, content):
    path = tmp_path / "empty.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=r"empty\.pth holds no dictionary of tensors"):
        import_weights(path, img_size_px=64)

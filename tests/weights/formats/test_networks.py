"""A network under any prefix, and files that hold several."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_backbones import saved
from torch import Tensor

from ssl_swin.cli import main
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.weights.backbone import load_backbone
from ssl_swin.weights.formats.exporting import export_weights
from ssl_swin.weights.formats.importing import import_weights
from ssl_swin.weights.formats.report import LoadReport

Build = Callable[..., SwinEncoder]
State = dict[str, Tensor]
OUTSIDE = "belongs to a larger model around the backbone"
PREFIXES = [
    "module.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "backbone.",
    "model.",
    "net.",
    "model.encoder.",
    "module.model.backbone.",
    "student.backbone.",
    "encoder.",
    "model.encoder.model.",
    "a.b.c.d.e.",
    "module.encoder_q.",
    "base_encoder.",
    "model.visual.trunk.",
]


@pytest.fixture
def state(tiny_encoder: Build) -> State:
    """A tiny Swin by timm's names."""
    return dict(tiny_encoder().model.state_dict())


def under(prefix: str, state: State, seed: int = 0) -> State:
    return {f"{prefix}{name}": tensor + seed for name, tensor in state.items()}


def imported(content: Any, folder: Path, **options: Any) -> tuple[dict[str, Tensor], LoadReport]:
    torch.save(content, folder / "x.pth")
    backbone, report = import_weights(folder / "x.pth", img_size_px=64, **options)
    return backbone.encoder.model.state_dict(), report


def same(ours: State, theirs: State, seed: int = 0) -> bool:
    return ours.keys() == theirs.keys() and all(
        tensor.equal(theirs[name] + seed) for name, tensor in ours.items()
    )


def reasons(report: LoadReport) -> dict[str, str]:
    return {entry.name: entry.reason for entry in report.dropped}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_import__under_any_prefix(state: State, tmp_path: Path, prefix: str) -> None:
    beside = {"projector.0.weight": torch.ones(2), "queue": torch.ones(3)}
    content = {"state_dict": under(prefix, state) | beside}
    ours, report = imported(content, tmp_path)
    assert same(ours, state)
    assert reasons(report) == dict.fromkeys(beside, OUTSIDE)
    assert {entry.name for entry in (*report.matched, *report.renamed)} == set(under(prefix, state))


def test_import__of_wrapped_modules_inside(state: State, tmp_path: Path) -> None:
    """As FSDP, activation checkpointing and compilation name them."""
    assert same(imported({"model": under("_orig_mod.", state)}, tmp_path)[0], state)
    wrapped = {
        "_fsdp_wrapped_module."
        + name.replace(".blocks.0.", ".blocks.0._checkpoint_wrapped_module.").replace(
            "layers.1.", "layers.1._orig_mod."
        ): tensor
        for name, tensor in state.items()
    }
    assert same(imported({"model": wrapped}, tmp_path)[0], state)


@pytest.mark.parametrize("key", ["model", "state_dict", "module", "weights", "net", "teacher", ""])
def test_import__under_any_key(state: State, tmp_path: Path, key: str) -> None:
    content = {key: state, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    ours, report = imported(content if key else {**state, "epoch": 3}, tmp_path)
    assert same(ours, state) and report.dropped == ()


@pytest.mark.slow
@pytest.mark.parametrize("to", ["simmim", "swin", "huggingface", "torchvision", "openmmlab"])
@pytest.mark.parametrize("prefix", ["module._orig_mod.", "model.student."])
def test_import__of_every_format_under_a_prefix(
    tiny_encoder: Build, tmp_path: Path, to: str, prefix: str
) -> None:
    encoder = tiny_encoder(img_size_px=128)
    backbone = saved(encoder, tmp_path / "backbone")
    export_weights(backbone, tmp_path / "out", to=to)
    if to == "huggingface":
        from safetensors.torch import load_file

        content = load_file(tmp_path / "out" / "model.safetensors")
    else:
        content = torch.load(tmp_path / "out", weights_only=True)
        content = content.get("model", content.get("state_dict", content))
    content = under(prefix, content) | {"extra.weight": torch.ones(1)}
    torch.save({"state_dict": content}, tmp_path / "x.pth")
    loaded, report = import_weights(tmp_path / "x.pth", img_size_px=128)
    assert same(loaded.encoder.model.state_dict(), encoder.model.state_dict())
    assert (loaded.simmim is not None) == (to in ("simmim", "huggingface", "openmmlab"))
    assert reasons(report)["extra.weight"] == OUTSIDE


@pytest.mark.parametrize("prefix", ["", "module."])
def test_import__of_a_tensor_inside_the_encoder_that_nobody_expects(
    state: State, tmp_path: Path, prefix: str
) -> None:
    content = under(prefix, state | {"adapter.weight": torch.ones(1)})
    if prefix == "":
        with pytest.raises(UserError, match=r"1 unexpected: adapter\.weight"):
            imported(content, tmp_path)
    else:
        with pytest.raises(UserError, match=r"1 unexpected: module\.adapter\.weight"):
            imported(content, tmp_path)


@pytest.mark.parametrize(
    ("network", "copy"),
    [
        ("encoder.", "encoder_k."),
        ("encoder_q.", "encoder_k."),
        ("module.base_encoder.", "module.momentum_encoder."),
        ("online_network.", "target_network."),
        ("backbone.", "backbone_momentum."),
        ("backbone.", "momentum_backbone."),
        ("_orig_mod.encoder.", "_orig_mod.encoder_k."),
        ("model.encoder.model.", "model.momentum.model."),
        ("encoder.", "key.encoder."),
    ],
)
def test_import__takes_the_trained_one_of_a_network_and_its_slow_copy(
    state: State, tmp_path: Path, network: str, copy: str
) -> None:
    queue = {"queue": torch.ones(3), "projector.0.weight": torch.ones(2)}
    content = {"model": under(copy, state, 1) | under(network, state) | queue}
    ours, report = imported(content, tmp_path)
    assert same(ours, state)
    names = [each.rstrip(".").removeprefix("_orig_mod.") for each in (network, copy)]
    assert report.notes[0] == f"the network model.{names[0]} is taken"
    expected = dict.fromkeys(
        under(copy, state), f"the network model.{names[1]} is a slow copy of model.{names[0]}"
    )
    assert reasons(report) == expected | dict.fromkeys(queue, OUTSIDE)
    assert same(imported(content, tmp_path, network_name=f"model.{names[1]}")[0], state, 1)


ASKED = {
    "dino": (("student", "teacher"), lambda a, b: {"student": a, "teacher": b}),
    "timm": (("state_dict", "state_dict_ema"), lambda a, b: {"state_dict": a, "state_dict_ema": b}),
    "ema": (("model", "model_ema"), lambda a, b: {"model": a, "model_ema": b}),
    "flat": (
        ("state_dict.student.backbone", "state_dict.teacher.backbone"),
        lambda a, b: {"state_dict": under("student.backbone.", a) | under("teacher.backbone.", b)},
    ),
    "bare_and_ema": (("model", "model.ema"), lambda a, b: {"model": a | under("ema.", b)}),
    "nested": (
        ("checkpoint.net.model", "checkpoint.net.ema"),
        lambda a, b: {"checkpoint": {"net": {"model": a, "ema": b}}},
    ),
}


@pytest.mark.parametrize("case", ASKED)
def test_import__asks_which_of_two_networks(state: State, tmp_path: Path, case: str) -> None:
    (first, second), arrange = ASKED[case]
    content = arrange(dict(state), under("", state, 1))
    with pytest.raises(UserError) as caught:
        imported(content, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'x.pth'}: holds 2 networks: {first}, {second}. Choose one: "
        f"`ssl-swin import FILE OUT --network {first}`, then backbone=OUT"
    )
    for name, seed in ((first, 0), (second, 1)):
        ours, report = imported(content, tmp_path, network_name=name)
        assert same(ours, state, seed)
        assert len(report.dropped) == len(state)
        other = second if name == first else first
        assert set(reasons(report).values()) == {f"the network {other}; --network {other} takes it"}


def test_import__takes_a_word_for_a_network(state: State, tmp_path: Path) -> None:
    content = {"state_dict": under("student.net.", state) | under("teacher.net.", state, 1)}
    assert same(imported(content, tmp_path, network_name="teacher")[0], state, 1)
    with pytest.raises(UserError, match=r"has 2 networks 'net'; its networks are state_dict\.stu"):
        imported(content, tmp_path, network_name="net")
    with pytest.raises(UserError, match=r"has no network 'EMA'; its networks are state_dict\.stu"):
        imported(content, tmp_path, network_name="EMA")


def test_import__of_equal_networks_asks_nothing(state: State, tmp_path: Path) -> None:
    ours, _ = imported({"model": state, "state_dict": dict(state)}, tmp_path)
    assert same(ours, state)


def test_import__takes_lightnings_average(state: State, tmp_path: Path) -> None:
    content = {
        "state_dict": under("model.", state),
        "current_model_state": under("model.", state, 1),
        "averaging_state": {"n_averaged": torch.tensor(3)},
    }
    ours, report = imported(content, tmp_path)
    assert same(ours, state)
    assert set(reasons(report).values()) == {
        "the weights that training goes on with; state_dict.model is their average"
    }


def test_import__of_a_whole_pickled_module(tiny_encoder: Build, tmp_path: Path) -> None:
    """torch.save(model): the tensors are read, and the module is not made."""
    with torch.no_grad():
        content = torch.nn.ModuleDict({"net": torch.nn.Linear(2, 2)})
    torch.save({"model": content}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"not a Swin .* its tensors are net\.weight, net\.bias"):
        import_weights(tmp_path / "x.pth")


def test_command__lets_one_choose(
    state: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "dino.pth", tmp_path / "out"
    torch.save({"student": state, "teacher": under("", state, 1)}, file)
    options = ["import", str(file), str(out), "--img-size-px", "64"]
    assert main(options) == 2
    assert "--network student" in capsys.readouterr().err
    assert main([*options, "--network", "teacher"]) == 0
    printed = capsys.readouterr().out
    assert "note: the network teacher is taken" in printed
    assert same(load_backbone(out).encoder.model.state_dict(), state, 1)


def test_local_backbone__says_what_was_taken_also_the_second_time(
    tiny_encoder: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_weights(saved(tiny_encoder(), tmp_path / "b"), tmp_path / "simmim.pth", to="simmim")
    given = torch.load(tmp_path / "simmim.pth", weights_only=True)
    encoder = {n.removeprefix("encoder."): t for n, t in given["model"].items() if "encoder" in n}
    encoder.pop("mask_token")
    content = {"model": under("encoder.", encoder) | under("encoder_k.", encoder, 1)}
    torch.save(content | {"config": given["config"]}, tmp_path / "moby.pth")
    for _ in range(2):
        local_backbone(str(tmp_path / "moby.pth"), tmp_path / "cache")
        assert "backbone: the network model.encoder is taken\n" in capsys.readouterr().out

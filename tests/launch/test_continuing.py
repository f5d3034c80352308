"""Pretraining that starts from weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from plain_views import plain_views
from torch.nn import AvgPool2d

import ssl_swin
from ssl_swin.encoders.encoder import Encoder
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.launch.continuing import Start
from ssl_swin.objectives.base import Objective
from ssl_swin.objectives.distillation import FeatureDistillation
from ssl_swin.objectives.ibot import IBOT
from ssl_swin.objectives.moby import MoBY
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.objectives.simmim_sparse import SparseSimMIM
from ssl_swin.objectives.teacher import Teacher
from ssl_swin.weights.backbone import load_backbone, save_backbone, save_extra_weights
from ssl_swin.weights.formats.exporting import export_weights
from ssl_swin.weights.formats.importing import import_weights, save_import
from ssl_swin.weights.formats.known_formats import NAMES

MODEL = {
    "_target_": "ssl_swin.swin",
    "version": 1,
    "img_size_px": 64,
    "patch_size_px": 4,
    "window_size": 4,
    "embed_dim": 8,
    "depths": [2, 1, 2, 1],
    "num_heads": [1, 2, 2, 4],
    "drop_path_rate": 0.0,
    "grad_checkpointing": False,
    "in_chans": 3,
}
OWN = {"_target_": None, "drop_path_rate": 0.1, "grad_checkpointing": False}
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.1]
Build = Callable[..., SwinEncoder]


@pytest.fixture(autouse=True)
def cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def given(tiny_encoder: Build, tmp_path: Path) -> SimMIM:
    """A pretrained model, in the folder `given`."""
    model = SimMIM(tiny_encoder())
    torch.nn.init.normal_(model.mask_token)
    save_backbone(tmp_path / "given", model.encoder, mean=MEAN, std=STD, card="")
    save_extra_weights(tmp_path / "given", model.extra_weights())
    return model


def config(backbone: Any, model: dict[str, Any] | None = None, channels: int = 3) -> DictConfig:
    data = {"channels": channels, "mean": MEAN, "std": STD}
    return OmegaConf.create({"backbone": backbone, "model": model or MODEL, "data": data})


def equal(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(t.equal(theirs[n]) for n, t in ours.items())


@pytest.mark.parametrize("model", [MODEL, OWN], ids=["model", "from_backbone"])
def test_start__takes_encoder_mask_token_and_head(
    given: SimMIM,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: dict[str, Any],
) -> None:
    start = Start(config(str(tmp_path / "given"), model), None)
    trained = SimMIM(start.encoder)
    assert not equal(trained, given)
    start.take_over(trained)
    assert equal(trained, given)
    assert capsys.readouterr().out == (
        f"starting from {tmp_path / 'given'}: encoder, mask_token, decoder.0.weight, "
        "decoder.0.bias\n"
    )


def test_start__without_a_head_says_so(
    given: SimMIM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "given" / "simmim.safetensors").unlink()
    start = Start(config(str(tmp_path / "given")), None)
    trained = SimMIM(start.encoder)
    start.take_over(trained)
    assert equal(trained.encoder, given.encoder)
    assert capsys.readouterr().out == (
        f"starting from {tmp_path / 'given'}: encoder; mask_token, decoder not from there\n"
    )


def test_start__of_another_objective_takes_the_encoder(
    given: SimMIM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = Start(config(str(tmp_path / "given")), None)
    trained = SparseSimMIM(start.encoder)
    start.take_over(trained)
    assert equal(trained.encoder, given.encoder)
    parts = dict.fromkeys(n.partition(".")[0] for n, _ in trained.named_parameters())
    parts.pop("encoder")
    assert parts and capsys.readouterr().out == (
        f"starting from {tmp_path / 'given'}: encoder; {', '.join(parts)} not from there\n"
    )


def test_start__takes_a_file_of_another_format(
    given: SimMIM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_weights(tmp_path / "given", tmp_path / "x.pth", to="simmim")
    start = Start(config(str(tmp_path / "x.pth")), None)
    trained = SimMIM(start.encoder)
    start.take_over(trained)
    assert equal(trained, given)
    assert "note: the backbone was trained with mean (0.485" in capsys.readouterr().out


def distilled(encoder: Encoder) -> FeatureDistillation:
    teacher = Teacher(AvgPool2d(32), name="cells", size_px=encoder.img_size_px, mean=MEAN, std=STD)
    return FeatureDistillation(encoder, teacher)


OBJECTIVES: dict[str, Callable[[Any], Objective]] = {
    "simmim": SimMIM,
    "sparse": SparseSimMIM,
    "distillation": distilled,
    "moby": partial(MoBY, colors=plain_views(), queue_length=8, hidden_dim=16, out_dim=8),
    "ibot": partial(IBOT, colors=plain_views(), num_prototypes=8, hidden_dim=16, bottleneck_dim=8),
}


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("format_name", NAMES)
@pytest.mark.parametrize("size_px", [128, 256])
def test_start__of_every_form_of_weights_for_every_objective(
    tiny_encoder: Build, tmp_path: Path, objective: str, format_name: str, size_px: int
) -> None:
    """As `ssl-swin import` makes a backbone of them, told the size that some do not tell."""
    model = SimMIM(tiny_encoder(img_size_px=128))
    save_backbone(tmp_path / "given", model.encoder, mean=MEAN, std=STD, card="")
    save_extra_weights(tmp_path / "given", model.extra_weights())
    endings = {"huggingface": "", "timm": ".safetensors"}
    form = tmp_path / f"form{endings.get(format_name, '.pth')}"
    export_weights(tmp_path / "given", form, to=format_name)
    imported, _ = import_weights(form, format_name=format_name, img_size_px=128)
    save_import(tmp_path / "imported", imported, card="")
    start = Start(config(str(tmp_path / "imported"), MODEL | {"img_size_px": size_px}), None)
    trained = OBJECTIVES[objective](start.encoder)
    start.take_over(trained)
    expected = resize_encoder(model.encoder, img_size_px=size_px, window_size=4).state_dict()
    followers = [part for part in trained.modules() if isinstance(part, Encoder)]
    assert len(followers) == 1 + (objective in ("moby", "ibot"))
    for follower in followers:
        found = follower.state_dict()
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, msg=name)


@pytest.mark.parametrize(
    ("size", "window", "said"),
    [
        (128, 4, " (resized from 64x64 to 128x128 px)"),
        (128, 8, " (resized from 64x64 to 128x128 px)"),
        (64, 2, " (fitted to its window)"),
        ([64, 128], 4, " (resized from 64x64 to 64x128 px)"),
    ],
)
def test_start__resizes_as_fine_tuning_does(
    given: SimMIM,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    size: Any,
    window: int,
    said: str,
) -> None:
    asked = MODEL | {"img_size_px": size, "window_size": window}
    start = Start(config(str(tmp_path / "given"), asked), None)
    assert equal(start.encoder, resize_encoder(given.encoder, img_size_px=size, window_size=window))
    start.take_over(SimMIM(start.encoder))
    assert f"given: encoder{said}, mask_token" in capsys.readouterr().out


def test_start__of_swin_v2_keeps_the_windows_of_pretraining(
    tiny_encoder: Build, tmp_path: Path
) -> None:
    encoder = tiny_encoder(version=2, pretrained_window_sizes=(8, 8, 8, 4))
    save_backbone(tmp_path / "v2", encoder, mean=MEAN, std=STD, card="")
    start = Start(config(str(tmp_path / "v2"), MODEL | {"version": 2, "img_size_px": 128}), None)
    assert start.encoder.model_args["pretrained_window_sizes"] == (8, 8, 8, 4)
    assert start.encoder.img_size_px == (128, 128)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 16}, "embed_dim is 8, asked for 16"),
        ({"depths": [1, 1, 1, 1]}, "depths is (2, 1, 2, 1), asked for (1, 1, 1, 1)"),
        ({"version": 2}, "architecture is swin_tiny_patch4_window7_224, asked for swinv2_tiny"),
        ({"in_chans": 5}, "in_chans is 3, asked for 5"),
        ({"patch_size_px": 2, "img_size_px": 32}, "patch_size is 4, asked for 2"),
    ],
)
def test_start__refuses_another_architecture(
    given: SimMIM, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        Start(config(str(tmp_path / "given"), MODEL | changes), None)
    told = str(caught.value)
    assert told.startswith("the backbone is of another architecture than the model asked for: ")
    assert message in told and "img_size" not in told
    assert told.endswith(
        "(name the backbone's model, or model=from_backbone to take its own at its own size)"
    )


def test_start__refuses_images_of_other_channels(given: SimMIM, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"takes images of 3 channels, and data\.channels is 5: set"
    ):
        Start(config(str(tmp_path / "given"), OWN, channels=5), None)


def test_start__needs_a_model_or_a_backbone() -> None:
    with pytest.raises(UserError, match="from_backbone takes the backbone's architecture: give"):
        Start(config(None, OWN), None)


def test_start__refuses_a_head_of_another_shape(given: SimMIM, tmp_path: Path) -> None:
    head = {"mask_token": torch.ones(1, 1, 9)}
    save_extra_weights(tmp_path / "given", {"simmim.safetensors": head})
    start = Start(config(str(tmp_path / "given")), None)
    with pytest.raises(UserError, match=r"mask_token has the shape \(1, 1, 9\), and this model's"):
        start.take_over(SimMIM(start.encoder))


@pytest.mark.parametrize("backbone", [None, "none"])
def test_start__from_random_weights(backbone: Any, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(3)
    start = Start(config(backbone), None)
    start.take_over(SimMIM(start.encoder))
    torch.manual_seed(3)
    assert equal(start.encoder, Start(config(None), None).encoder)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("model", [MODEL, OWN], ids=["model", "from_backbone"])
def test_start__of_a_continued_run_does_not_need_the_backbone(
    tiny_encoder: Build, tmp_path: Path, model: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tiny_encoder(version=1)
    facts = {"architecture": encoder.architecture, "model_args": encoder.model_args}
    torch.save({"ssl_swin": facts}, tmp_path / "last.ckpt")
    start = Start(config("gone", model), tmp_path / "last.ckpt")
    assert start.encoder.model_args == encoder.model_args
    start.take_over(SimMIM(start.encoder))
    assert capsys.readouterr().out == ""


TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=16",
    "data.prepare.num_val=8",
    "batch_size=8",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "callbacks.probes=null",
    "callbacks.reconstructions=null",
)


@pytest.mark.slow
def test_pretrain__refines_a_finished_masked_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first = ssl_swin.pretrain([*TINY, "trainer.max_epochs=1", "name=first"])
    small = [option for option in TINY if not option.startswith("model.")]
    recipe = ["experiment=pretrain_refine_moby_50ep", "data=demo", *small, "trainer=cpu"]
    heads = ["objective.queue_length=16", "objective.hidden_dim=16", "objective.out_dim=8"]
    shorter = ["trainer.max_epochs=2", "freeze_backbone_epochs=1", "schedule.warmup_epochs=0"]
    started = [*recipe, *heads, *shorter, f"backbone={first}"]
    with pytest.raises(UserError, match=r"the stages 1 to 3; .* objective\.stages=\[2, 3\]"):
        ssl_swin.pretrain(started)
    with pytest.raises(UserError, match="the backbone's architecture: give backbone="):
        ssl_swin.pretrain(started[:-1])
    capsys.readouterr()
    refined = ssl_swin.pretrain([*started, "objective.stages=[2,3]"])
    said = capsys.readouterr().out
    assert f"starting from {first}: encoder; projectors, predictors, target, " in said
    assert "MoBY, heads on stages 2 and 3, 16 keys" in said
    assert refined.name == "refined_first_demo"
    before, after = (load_backbone(run).encoder for run in (first, refined))
    assert before.model_args == after.model_args and not equal(before, after)
    assert (refined / "backbone/README.md").is_file()


@pytest.mark.slow
def test_pretrain__continues_from_weights_and_then_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first = ssl_swin.pretrain([*TINY, "trainer.max_epochs=1", "name=first"])
    started = [*TINY, "trainer.max_epochs=1", "name=second", f"backbone={first}"]
    still = [*started, "optim.base_lr=1e-30", "schedule.warmup_lr=0", "schedule.min_lr=0"]
    second = ssl_swin.pretrain([*still, "optim.weight_decay=0"])
    assert f"starting from {first}: encoder, mask_token" in capsys.readouterr().out
    assert equal(load_backbone(first).encoder, load_backbone(second).encoder)
    settings = yaml.safe_load((second / "config.yaml").read_text())
    assert settings["backbone"] == str(first)
    with pytest.raises(UserError, match="backbone: was 'runs/pretrain/first', now None"):
        ssl_swin.pretrain([option for option in still if "backbone" not in option])
    first.rename(tmp_path / "gone")
    ssl_swin.pretrain([*still, "optim.weight_decay=0"])
    assert "starting from" not in capsys.readouterr().out

"""The weights of a run that was stopped, or of any checkpoint that it kept."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

import ssl_swin
from ssl_swin.cli import main
from ssl_swin.encoders.swin import SwinEncoder
from ssl_swin.errors import UserError
from ssl_swin.launch.artifacts import local_backbone
from ssl_swin.objectives.base import Objective
from ssl_swin.objectives.simmim import SimMIM
from ssl_swin.tasks.classification import Classification
from ssl_swin.training.module import TrainingModule
from ssl_swin.weights.backbone import Backbone, load_backbone, save_backbone
from ssl_swin.weights.formats.importing import import_weights

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.1]
CONFIG: dict[str, Any] = {
    "model": {"_target_": "ssl_swin.swin", "img_size_px": 64, "window_size": 4, "embed_dim": 8},
    "data": {"mean": MEAN, "std": STD},
}
Build = Callable[..., SwinEncoder]


def checkpoint(model: Objective, step: int = 1234, *, has_facts: bool = True) -> dict[str, Any]:
    """What Lightning and the module write, of which the rest does not matter here."""
    module = TrainingModule(model, optimizer=None, schedule=None, mean=MEAN, std=STD, seed=0)
    content: dict[str, Any] = {
        "epoch": 3,
        "global_step": step,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": module.state_dict(),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}}],
        "callbacks": {"StepCheckpoint": {"best_model_path": ""}},
    }
    if has_facts:
        module._metrics_files = list  # nothing is logged
        module.on_save_checkpoint(content)
    return content


def write_run(
    folder: Path, files: dict[str, dict[str, Any]], config: dict[str, Any] | None = None
) -> Path:
    """A run that was stopped, with checkpoints and no backbone."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG if config is None else config))
    (folder / "provenance.json").write_text('{"status": "running"}')
    for name, content in files.items():
        torch.save(content, folder / "checkpoints" / name)
    return folder


@pytest.fixture(autouse=True)
def cache_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def model(tiny_encoder: Build) -> SimMIM:
    model = SimMIM(tiny_encoder())
    torch.nn.init.normal_(model.mask_token)
    return model


@pytest.fixture
def run(model: SimMIM, tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "pretrain" / "x", {"last.ckpt": checkpoint(model)})


def is_of(backbone: Backbone, encoder: SwinEncoder, seed: int = 0) -> bool:
    assert (list(backbone.mean), list(backbone.std)) == (MEAN, STD)
    assert backbone.encoder.model_args == encoder.model_args
    state, expected = backbone.encoder.model.state_dict(), encoder.model.state_dict()
    return all(tensor.equal(expected[name] + seed) for name, tensor in state.items())


@pytest.mark.parametrize(
    "part", ["", "checkpoints", "checkpoints/last.ckpt", "checkpoints/step_0000900.ckpt"]
)
@pytest.mark.parametrize("has_facts", [True, False])
def test_backbone__of_a_stopped_run(
    model: SimMIM, tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, has_facts: bool
) -> None:
    files = {
        "last.ckpt": checkpoint(model, has_facts=has_facts),
        "step_0000900.ckpt": checkpoint(model, 900, has_facts=has_facts),
    }
    run = write_run(tmp_path / "x", files)
    folder = local_backbone(str(run / part), tmp_path / "cache")
    assert is_of(load_backbone(folder), model.encoder)
    head = (folder / "simmim.safetensors").is_file()
    assert head
    name, step = ("step_0000900", "900") if "step" in part else ("last", "1,234")
    assert folder.name.startswith(f"x-{name}-")
    printed = f"backbone: {name}.ckpt: the weights of step {step}, of the unfinished run x\n"
    assert capsys.readouterr().out == printed


def test_backbone__of_a_stopped_run_without_last_takes_the_newest_kept(
    model: SimMIM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {f"step_{step:07d}.ckpt": checkpoint(model, step) for step in (900, 1000, 20)}
    local_backbone(str(write_run(tmp_path / "x", steps)), tmp_path / "cache")
    assert "step_0001000.ckpt: the weights of step 1,000" in capsys.readouterr().out


def test_backbone__of_a_run_that_goes_on_is_its_newest_state(
    model: SimMIM, run: Path, tmp_path: Path
) -> None:
    first = local_backbone(str(run), tmp_path / "cache")
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.add_(1)
    torch.save(checkpoint(model, 2000), run / "checkpoints" / "last.ckpt")
    second = local_backbone(str(run), tmp_path / "cache")
    assert second != first
    assert is_of(load_backbone(second), model.encoder)


def test_backbone__of_a_run_without_a_checkpoint(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()
    for function in (lambda: local_backbone(str(run), tmp_path), lambda: import_weights(run)):
        with pytest.raises(
            UserError, match="written no backbone and no checkpoint yet; let it tra"
        ):
            function()


def test_backbone__of_a_finished_run_says_nothing(
    model: SimMIM, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_backbone(run / "backbone", model.encoder, mean=MEAN, std=STD, card="")
    (run / "provenance.json").write_text('{"status": "finished"}')
    assert local_backbone(str(run), tmp_path / "cache") == run / "backbone"
    assert capsys.readouterr().out == ""
    local_backbone(str(run / "checkpoints" / "last.ckpt"), tmp_path / "cache")
    assert "of step 1,234, of the finished run x" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000])
def test_backbone__of_a_run_with_a_damaged_record(run: Path, tmp_path: Path, content: str) -> None:
    (run / "provenance.json").write_text(content)
    assert local_backbone(str(run), tmp_path / "cache").is_dir()


def test_backbone__of_a_checkpoint_that_was_moved_away(
    model: SimMIM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(checkpoint(model), tmp_path / "moved.ckpt")
    assert is_of(ssl_swin.load_backbone(tmp_path / "moved.ckpt"), model.encoder)
    assert capsys.readouterr().out == (
        "backbone: moved.ckpt: the weights of step 1,234, of a run elsewhere\n"
    )
    torch.save(checkpoint(model, has_facts=False), tmp_path / "old.ckpt")
    with pytest.raises(UserError) as caught:
        import_weights(tmp_path / "old.ckpt")
    assert "give img_size_px" in str(caught.value)
    assert str(caught.value).endswith(
        "; this checkpoint of an earlier version does not say how its model was built, but its "
        "run's folder does: give the path inside that"
    )
    assert import_weights(tmp_path / "old.ckpt", img_size_px=64)[0].simmim is not None


def test_backbone__of_swin_v2_keeps_the_windows_of_pretraining(
    tiny_encoder: Build, tmp_path: Path
) -> None:
    encoder = tiny_encoder(version=2, pretrained_window_sizes=(8, 8, 8, 4), in_chans=3)
    torch.save(checkpoint(SimMIM(encoder)), tmp_path / "v2.ckpt")
    assert is_of(ssl_swin.load_backbone(tmp_path / "v2.ckpt"), encoder)
    height = tiny_encoder(img_size_px=(64, 128))
    torch.save(checkpoint(SimMIM(height)), tmp_path / "wide.ckpt")
    assert is_of(ssl_swin.load_backbone(tmp_path / "wide.ckpt"), height)


def test_backbone__of_an_averaged_run_is_the_average(
    model: SimMIM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = checkpoint(model)
    content["current_model_state"] = {n: t + 1 for n, t in content["state_dict"].items()}
    run = write_run(tmp_path / "x", {"last.ckpt": content})
    folder = local_backbone(str(run), tmp_path / "cache")
    assert is_of(load_backbone(folder), model.encoder)
    assert "of step 1,234, averaged over its steps, of the unf" in capsys.readouterr().out


@pytest.mark.parametrize("has_facts", [True, False])
def test_backbone__of_fine_tuning(tiny_encoder: Build, tmp_path: Path, has_facts: bool) -> None:
    """The best epoch counts; an older checkpoint takes its size from the backbone before it."""
    encoder = tiny_encoder()
    save_backbone(tmp_path / "before" / "backbone", encoder, mean=MEAN, std=STD, card="")
    config = {
        "backbone": str(tmp_path / "before"),
        "img_size_px": None,
        "window_size": None,
        "model": {"_target_": None},
        "data": {"mean": MEAN, "std": STD},
    }
    task = Classification(encoder, ["a", "b", "c"])
    files = {"best.ckpt": checkpoint(task, 10, has_facts=has_facts)}
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1)
    files["last.ckpt"] = checkpoint(task, 30, has_facts=has_facts)
    for name in ("best.ckpt",):
        files[name]["state_dict"] = {
            n: t - 1 if n.startswith("model.encoder") else t
            for n, t in files["last.ckpt"]["state_dict"].items()
        }
    run = write_run(tmp_path / "finetuned", files, config)
    backbone = ssl_swin.load_backbone(run)
    assert all(
        (tensor + 1).allclose(encoder.model.state_dict()[name], atol=1e-6)
        for name, tensor in backbone.encoder.model.state_dict().items()
    )
    kept, report = import_weights(run / "checkpoints" / "last.ckpt", num_classes=3)
    assert kept.classifier is not None and kept.classifier.head.weight.equal(task.head.weight)
    assert report.notes[0] == "last.ckpt: the weights of step 30, of the unfinished run finetuned"
    dropped = import_weights(run)[1].dropped
    assert "a head of 3 classes, which a backbone has not" in {entry.reason for entry in dropped}


def test_backbone__of_a_finished_fine_tuning_is_its_model(
    tiny_encoder: Build, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "x", {})
    save_backbone(run / "classifier", tiny_encoder(), mean=MEAN, std=STD, card="")
    assert local_backbone(str(run), tmp_path / "cache") == run / "classifier"


def test_commands__of_a_stopped_run(
    model: SimMIM, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "last.ckpt: the weights of step 1,234, of the unfinished run x"
    assert main(["import", str(run), str(tmp_path / "out")]) == 0
    assert f"note: {note}\n" in capsys.readouterr().out
    assert is_of(load_backbone(tmp_path / "out"), model.encoder)
    last = str(run / "checkpoints" / "last.ckpt")
    assert main(["export", last, "--to", "simmim", str(tmp_path / "out.pth")]) == 0
    assert f"backbone: {note}\n" in capsys.readouterr().out
    again = import_weights(tmp_path / "out.pth")[0].simmim
    assert again is not None and again.mask_token.equal(model.mask_token)


def test_checkpoint__with_code_in_it_is_refused(run: Path, tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> Any:
            return Path.mkdir, (tmp_path / "executed",)

    path = run / "checkpoints" / "last.ckpt"
    torch.save(torch.load(path, weights_only=True) | {"hyper_parameters": Planted()}, path)
    with pytest.raises(UserError, match="nothing was executed"):
        local_backbone(str(run), tmp_path / "cache")
    assert not (tmp_path / "executed").exists()


def test_import__quotes_a_hostile_name_in_its_next_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(run), "a b$(touch x)'<script>"]) == 0
    command = capsys.readouterr().out.partition("next: ")[2]
    *_, option = shlex.split(command)
    value = OverridesParser.create().parse_override(option).value()
    assert value == "a b$(touch x)'<script>"
    card = (tmp_path / value / "README.md").read_text()
    assert not re.search("<script>", card)
    assert json.loads((tmp_path / value / "config.json").read_text())["num_classes"] == 0


def test_backbone__of_a_folder_of_runs_names_them(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        local_backbone(str(run.parent), tmp_path / "cache")
    assert str(caught.value) == (
        f"backbone={run.parent} is a folder of runs: name one of them, as {run}"
    )


@pytest.mark.parametrize("reference", ["", " "])
def test_backbone__of_nothing(tmp_path: Path, reference: str) -> None:
    with pytest.raises(UserError, match="backbone is empty; it can be the folder of a run or a ba"):
        local_backbone(reference, tmp_path / "cache")


def test_backbone__of_a_run_that_diverged(model: SimMIM, run: Path, tmp_path: Path) -> None:
    with torch.no_grad():
        model.encoder.model.norm.bias[0] = float("nan")
    torch.save(checkpoint(model), run / "checkpoints" / "last.ckpt")
    with pytest.raises(
        UserError, match=r"1 of its tensors hold values that are not finite.*: mode"
    ):
        local_backbone(str(run), tmp_path / "cache")

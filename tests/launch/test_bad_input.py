"""Every mistake a user can make ends in one message, exit code 2, and no traceback."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image

from ssl_swin.cli import main as ssl_swin_command
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.launch.script import run_job

ROOT = Path(__file__).parents[2]
NANO = ("model.embed_dim=8", "model.depths=[1,1,1]", "model.num_heads=[1,1,2]")
SHORT = ("trainer.max_steps=1", "batch_size=4", "num_workers=0")
BRIEF = (*SHORT, "logger=csv", "data_overrides=none")


def complaint(capsys: pytest.CaptureFixture[str], job: str, *overrides: str) -> str:
    """Runs a job in this process; gives its one message."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(job, overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        OmegaConf.set_struct(cfg, False)
        cfg.pop("hydra")
        OmegaConf.set_struct(cfg, True)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_job(job, cfg)
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert 'File "' not in message
    return message


def script(name: str, *overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / f"{name}.py"), *overrides]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Twelve labelled pictures in two classes, packed with a validation split."""
    generator = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    out = tmp_path / "shards"
    pack = ["pack", str(tmp_path / "photos"), str(out), "--val-ratio", "0.3", "--workers", "0"]
    assert ssl_swin_command([*pack, "--shard-samples", "4"]) == 0
    return out


Complain = Callable[..., str]


@pytest.fixture
def pretrain(
    shards: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Complain:
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> str:
        data = ("data=shards", f"data.root={shards}")
        return complaint(capsys, "pretrain", *data, *NANO, *BRIEF, *overrides)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("objective.mask_ratio=1.0", ["mask_ratio must be a number in (0, 1), got 1.0"]),
        ("objective.mask_ratio=-0.1", ["mask_ratio must be a number in (0, 1), got -0.1"]),
        ("model.img_size_px=100", ["100 px", "sides that do: ", "96"]),
        ("model.window_size=5", ["windows of 5 tokens", "sides that do: "]),
        ("objective.mask_patch_size_px=20", ["20 px does not tile", "16", "32"]),
        ("objective.mask_patch_size_px=6", ["6 px does not tile", "patches of 4 px", "12, 16"]),
        ("model.num_heads=[1,1,3]", ["stage 3 is 32 wide", "3 heads"]),
        (
            "data.reader=magic",
            ["data.reader must be indexed or folder or stream or coco or voc or yolo, got 'magic'"],
        ),
        ("batch_size=64", ["cannot fill one batch of 64"]),
        ("optim.weight_decay_policy=no", ["official", "intended", "'no'"]),
        ("resume=nowhere.ckpt", ["resume=nowhere.ckpt", "no such checkpoint"]),
        (
            "trainer.max_epochs=many",
            ["trainer.max_epochs must be a whole number of at least 1, got 'many'"],
        ),
        ("objective.mask_ratio=most", ["mask_ratio must be a number in (0, 1), got 'most'"]),
        ("optim.base_lr=high", ["optim.base_lr must be a number in (0, 1e+06], got 'high'"]),
        ("trainer.max_epochs=-1", ["max_epochs must be a whole number of at least 1, got -1"]),
        ("batch_size=0", ["batch_size must be a whole number of at least 1, got 0"]),
    ],
)
def test_pretrain__refuses(pretrain: Complain, override: str, parts: list[str]) -> None:
    message = pretrain(override)
    assert all(part in message for part in parts), message
    assert not Path("runs").exists()  # nothing is left behind


def test_pretrain__missing_data_names_the_folder_and_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = complaint(capsys, "pretrain", "model=swin_nano", "data=imagenet22k", "logger=csv")
    assert "data/imagenet22k" in message
    assert "ssl-swin pack PATH_TO_SYNSET_TARS data/imagenet22k" in message


def test_pretrain__missing_shard(pretrain: Complain, shards: Path) -> None:
    (shards / "train-000001.tar").unlink()
    assert "train-000001.tar" in pretrain()


def test_pretrain__cut_shard(pretrain: Complain, shards: Path) -> None:
    shard = shards / "train-000000.tar"
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-700])
    message = pretrain()
    assert "train-000000.tar" in message
    assert str(size) in message.replace(",", "")


def test_pretrain__damaged_image_is_named_without_the_workers_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(picture, "jpeg")
    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(picture.getvalue()[:400])
    options = ("data=folder", f"data.root={folder}", *NANO, *BRIEF, "num_workers=1")
    message = complaint(capsys, "pretrain", *options, "callbacks.reconstructions.num_images=1")
    assert "no image of train can be read, the first is" in message
    assert ".jpg" in message


def test_pretrain__folder_without_images(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    message = complaint(capsys, "pretrain", "data=folder", "data.root=empty", "logger=csv")
    assert "no images in empty" in message


def test_pretrain__run_of_another_configuration(pretrain: Complain) -> None:
    folder = Path("runs/pretrain/taken")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 7\n")
    (folder / "results.json").write_text("{}")
    message = pretrain("name=taken")
    assert "runs/pretrain/taken already holds a run with another configuration" in message
    assert len(message.splitlines()) <= 6  # although nearly every setting differs
    assert re.search(r"\n  and \d+ more: ", message)


def test_pretrain__no_permission_to_write(pretrain: Complain) -> None:
    Path("runs").write_text("a file where the folder of runs should be")
    assert "cannot create the folder runs/pretrain" in pretrain("name=x")


def test_pretrain__checkpoint_with_code(pretrain: Complain, tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Planted:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path(marker).touch.__func__, (marker,)  # type: ignore[attr-defined]

    torch.save({"state_dict": Planted()}, tmp_path / "bad.ckpt")
    message = pretrain(f"resume={tmp_path / 'bad.ckpt'}")
    assert "not data" in message
    assert "nothing was executed" in message
    assert not marker.exists()


@pytest.mark.parametrize("job", ["finetune", "linear_probe"])
@pytest.mark.parametrize(
    ("backbone", "part"),
    [
        ("nowhere", "backbone=nowhere: no such folder"),
        (".", "is not a backbone"),
        ("none", "name a model"),
    ],
)
def test_downstream__backbone_that_is_none(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    job: str,
    backbone: str,
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("data=shards", "data.root=x", "logger=csv", "name=x")
    assert part in complaint(capsys, job, f"backbone={backbone}", *options)


def test_finetune__backbone_of_another_architecture(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_swin.encoders.swin import swin
    from ssl_swin.weights.backbone import save_backbone

    monkeypatch.chdir(tmp_path)
    encoder = swin(
        version=1, img_size_px=96, window_size=6, embed_dim=8, depths=(1, 1), num_heads=(1, 1)
    )
    save_backbone(Path("mine"), encoder, mean=[0.5] * 3, std=[0.5] * 3, card="")
    options = ("backbone=mine", "data=shards", "data.root=x", "logger=csv")
    message = complaint(capsys, "finetune", "model=swin_nano", *options)
    assert "another architecture" in message
    assert "embed_dim is 8, asked for 48" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.bas_lr=1", ["no setting optim.bas_lr", "did you mean optim.base_lr"]),
        ("modle=swin_b", ["no setting modle", "model"]),
        ("model=swin_bb", ["no model=swin_bb", "swin_b", "model can be: "]),
        (
            "model=null",
            ["py: model=null: model is a group, choose one of: convnext_b, "],
        ),
        ("data=imagenet", ["no data=imagenet", "did you mean imagenet1k or imagenet22k"]),
        ("experiment=pretrain_smal", ["no experiment=pretrain_smal", "pretrain_small"]),
    ],
)
def test_script__misspelt_override(tmp_path: Path, override: str, parts: list[str]) -> None:
    result = script("pretrain", override, cwd=tmp_path)
    assert result.returncode == 2
    assert 'File "' not in result.stderr
    assert all(part in result.stderr for part in parts), result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_script__message_alone(tmp_path: Path) -> None:
    result = script("pretrain", "objective.mask_ratio=2", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "pretrain.py: objective.mask_ratio must be a number in (0, 1), got 2"
    ]


@pytest.mark.slow
def test_script__missing_backbone_says_how_to_give_it(tmp_path: Path) -> None:
    result = script("finetune", cwd=tmp_path)
    assert result.returncode == 2
    assert "backbone is not set: give it as backbone=VALUE" in result.stderr


def test_index__damaged(pretrain: Complain, shards: Path) -> None:
    index = json.loads((shards / "index.json").read_text())
    index["splits"] = "?"
    (shards / "index.json").write_text(json.dumps(index))
    assert "index.json" in pretrain()

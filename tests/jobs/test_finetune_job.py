"""The settings of conf/finetune.yaml that change sizes, labels and what is kept, in whole runs."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, open_dict
from PIL import Image
from safetensors.torch import load_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN as IMAGENET_MEAN
from timm.data.constants import IMAGENET_DEFAULT_STD as IMAGENET_STD
from torchvision.transforms.v2 import functional as TF

from ssl_swin.data.transforms import CentreCrop
from ssl_swin.encoders.resize import resize_encoder
from ssl_swin.errors import UserError
from ssl_swin.inference.calibration import load_calibration
from ssl_swin.inference.predictors.base import load_predictor
from ssl_swin.inference.predictors.classification import ClassPredictor
from ssl_swin.jobs import linear_probe
from ssl_swin.launch.build import build_encoder
from ssl_swin.launch.resolvers import register_resolvers
from ssl_swin.launch.script import run_job
from ssl_swin.reporting.tiles import GAP_PX, TILE_PX
from ssl_swin.weights.backbone import load_backbone, save_backbone

ROOT = Path(__file__).parents[2]
COLOURS = {"gray": (120, 120, 120), "pink": (135, 120, 120)}
BRIEF = (
    "backbone=mine",
    "data=folder",
    "data.root=photos",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false",
    "batch_size=4",
    "num_workers=0",
    "optim.base_lr=0.1",
    "schedule.warmup_epochs=0",
    "run_dir=run",
)


@pytest.fixture
def workplace(tmp_path: Path, tiny_encoder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backbone for 64 px, and 12 training and 7 validation pictures of two classes."""
    monkeypatch.chdir(tmp_path)
    save_backbone(Path("mine"), tiny_encoder(), mean=[0.5] * 3, std=[0.5] * 3, card="")
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 7)):
        for number in range(count):
            name, colour = list(COLOURS.items())[number % 2]
            path = Path("photos") / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.normal(colour, 60, (70, 90, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path)
    return tmp_path


def composed(job: str, *overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(job, overrides=list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            cfg.pop("hydra")
    return cfg


def run(*overrides: str) -> None:
    run_job("finetune", composed("finetune", *BRIEF, *overrides))


def last_row() -> dict[str, str]:
    with Path("run/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))[-1]


def by_hand(size_px: int) -> dict[str, float]:
    """The handed-over classifier, taken to a size and shown every validation picture."""
    encoder = resize_encoder(load_backbone("run/classifier").encoder, img_size_px=size_px).eval()
    weights = load_file("run/classifier/model.safetensors")
    mean, std = (torch.tensor(m)[:, None, None] for m in (IMAGENET_MEAN, IMAGENET_STD))
    view, losses, right = CentreCrop((size_px, size_px)), [], []
    for path in sorted(Path("photos/val").rglob("*.png")):
        pixels = view.on_pixels(TF.pil_to_tensor(Image.open(path)), np.random.default_rng(0))
        with torch.no_grad():
            features = encoder(((pixels / 255 - mean) / std)[None]).mean(dim=(2, 3))[0]
        scores = weights["head.fc.weight"] @ features + weights["head.fc.bias"]
        label = list(COLOURS).index(path.parent.name)
        losses.append(-scores.log_softmax(0)[label].item())
        right.append(scores.argmax().item() == label)
    return {"val/loss": np.mean(losses), "val/top1": np.mean(right)}


def check(suffix: str, size_px: int) -> None:
    row = last_row()
    for name, value in by_hand(size_px).items():
        assert float(row[name + suffix]) == pytest.approx(value, rel=1e-4), name


class Predict(Callback):
    """Makes the classifier answer gray in the first epoch's validation, and pink in the second's.

    Of seven validation images four are gray, so that the first epoch is the better one.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "fit":
            bias = [5.0, 0.0] if trainer.current_epoch == 0 else [0.0, 5.0]
            with torch.no_grad():
                pl_module.model.head.weight.zero_()
                pl_module.model.head.bias.copy_(torch.tensor(bias))


def test_finetune__hands_on_the_best_epoch_and_not_the_last(workplace):
    run(f"+callbacks.predict={{_target_: {__name__}.Predict}}")
    weights = load_file("run/classifier/model.safetensors")
    assert weights["head.fc.bias"].tolist() == [5.0, 0.0]
    row = last_row()
    assert float(row["val/top1_best"]) == pytest.approx(4 / 7, abs=1e-4)
    assert float(row["val/top1"]) == pytest.approx(3 / 7, abs=1e-4)  # of the last epoch
    assert row["step"] == "6"
    assert row["samples_seen"] == "24"


def test_finetune__shows_what_the_best_epoch_takes_for_what(workplace):
    run(f"+callbacks.predict={{_target_: {__name__}.Predict}}")
    with Path("run/confusion_val/confusion.csv").open(newline="") as file:
        pairs = [tuple(row.values()) for row in csv.DictReader(file)]
    assert pairs == [("gray", "gray", "4"), ("pink", "gray", "3")]
    with Path("run/confusion_val/per_class.csv").open(newline="") as file:
        accuracy = {row["class"]: row["accuracy_percent"] for row in csv.DictReader(file)}
    assert accuracy == {"gray": "100.00", "pink": "0.00"}
    tiles_px = Image.open("run/confusion_val/mistakes.png").width - GAP_PX
    assert tiles_px == 3 * (TILE_PX + GAP_PX)
    page = Path("run/report.html").read_text()
    assert "<h2>Classes on val</h2>" in page
    captions = [
        f'alt="{caption}, val"' for caption in ("confusion matrix", "most confident mistakes")
    ]
    assert all(caption in page for caption in captions)
    assert not Path("run/errors.log").exists()


@pytest.mark.parametrize("with_test", [False, True])
def test_finetune__calibrates_the_best_epoch_on_val(workplace, with_test, capsys):
    if with_test:
        shutil.copytree("photos/train", "photos/test")
    run(f"+callbacks.predict={{_target_: {__name__}.Predict}}")
    calibration = load_calibration(Path("run/classifier"))
    # Of four gray and three pink images all are called gray, by logits of 5 and 0: the likeliest
    # temperature makes that 4 / 7.
    assert calibration is not None and calibration.num_images == 7
    assert calibration.temperature == pytest.approx(5 / math.log(4 / 3), rel=1e-3)
    predictor = load_predictor(Path("run/classifier"))
    assert isinstance(predictor, ClassPredictor)
    assert predictor.temperature == calibration.temperature
    assert f"calibrated on val: {calibration}" in capsys.readouterr().out
    row = last_row()
    assert float(row["val/top1_best"]) == pytest.approx(4 / 7, abs=1e-4)
    if with_test:
        assert float(row["test/top1"]) == pytest.approx(6 / 12, abs=1e-4)
    assert not Path("run/errors.log").exists()


@pytest.mark.parametrize(
    "broken",
    [
        "ssl_swin.jobs.finetune.fit_calibration",
        "ssl_swin.training.callbacks.class_scores._num_bytes",
    ],
)
def test_finetune__hands_on_what_it_has_if_its_calibration_fails(workplace, monkeypatch, broken):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(broken, fail)
    run()
    assert Path("run/classifier/model.safetensors").is_file()
    assert not Path("run/classifier/calibration.json").exists()
    assert Path("run/errors.log").read_text().count("the calibration\n") == 1


@pytest.mark.parametrize(
    "broken",
    [
        "ssl_swin.training.callbacks.class_predictions._thumbnail",
        "ssl_swin.training.callbacks.class_predictions.draw_mistakes",
    ],
)
def test_finetune__hands_on_what_it_has_if_its_confusions_fail(workplace, monkeypatch, broken):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(broken, fail)
    run(f"+callbacks.predict={{_target_: {__name__}.Predict}}")
    assert Path("run/classifier/model.safetensors").is_file()
    assert Path("run/errors.log").read_text().count("the confusion matrix\n") == 1
    assert float(last_row()["val/top1_best"]) == pytest.approx(4 / 7, abs=1e-4)


@pytest.mark.slow
def test_finetune__at_another_size_than_the_backbones(workplace, capsys):
    run("model.img_size_px=96", "test_img_size_px=[64,128]")
    arguments = json.loads(Path("run/classifier/config.json").read_text())["model_args"]
    assert (arguments["img_size"], arguments["window_size"]) == ([96, 96], 6)
    row = last_row()
    printed = capsys.readouterr().out
    assert f"{float(row['val/top1_best']):.4f} on val at 96 px, " in printed
    assert f"{float(row['val/top1_at_64x128px']):.4f} on val at 64x128 px" in printed
    check("_best", 96)


@pytest.mark.slow
def test_finetune__measures_its_result_at_a_second_size(workplace):
    run("test_img_size_px=96")
    check("_best", 64)
    check("_at_96px", 96)
    assert last_row()["val/loss_best"] != last_row()["val/loss_at_96px"]
    config = json.loads(Path("run/classifier/config.json").read_text())
    assert config["model_args"]["img_size"] == [64, 64]


@pytest.mark.slow
def test_finetune__on_few_labels_with_averaged_weights(workplace, capsys):
    run("labels.per_class=4", "ema_decay=0.5")
    assert "labels: 8 of 12 training images" in capsys.readouterr().out
    last = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4  # two epochs of 8 images
    best = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    handed_over = load_file("run/classifier/model.safetensors")
    name = "layers.0.blocks.0.mlp.fc1.weight"
    assert handed_over[name].equal(best["state_dict"][f"model.encoder.model.{name}"])
    assert not handed_over[name].equal(best["current_model_state"][f"model.encoder.model.{name}"])
    check("_best", 64)


NANO = ("model=swin_nano", "model.embed_dim=8", "model.depths=[1,1,1]", "model.num_heads=[1,1,2]")


@pytest.mark.slow
@pytest.mark.parametrize("job", ["finetune", "linear_probe"])
@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        pytest.param((), ((96, 96), 6), marks=pytest.mark.slow),
        pytest.param(
            ("model.img_size_px=128", "model.window_size=8"),
            ((128, 128), 8),
            marks=pytest.mark.slow,
        ),
        (("model.img_size_px=[96,192]", "model.window_size=3"), ((96, 192), 3)),
    ],
)
def test_build_encoder__at_a_size(tmp_path, monkeypatch, job, sizes, expected):
    """Of random weights, of a backbone, and of one that must be the model that is named."""
    monkeypatch.chdir(tmp_path)
    data = ("data=folder", "data.root=photos", "name=x")
    pretrained = build_encoder(composed(job, "backbone=none", *NANO, *data))
    save_backbone(Path("mine"), pretrained, mean=[0.5] * 3, std=[0.5] * 3, card="")
    random = build_encoder(composed(job, "backbone=none", *NANO, *data, *sizes))
    loaded = build_encoder(composed(job, "backbone=mine", *data, *sizes))
    checked = build_encoder(composed(job, "backbone=mine", *NANO, *data, *sizes))
    for encoder in (random, loaded, checked):
        assert (encoder.img_size_px, encoder.model_args["window_size"]) == expected
    weights, handed_over = loaded.model.state_dict(), pretrained.model.state_dict()
    assert weights["patch_embed.proj.weight"].equal(handed_over["patch_embed.proj.weight"])
    scaled = build_encoder(composed(job, "backbone=mine", "model.img_size_px=128", *data))
    assert scaled.model_args["window_size"] == 8
    with pytest.raises(UserError, match=r"embed_dim is 8, asked for 16 \(leave the model out"):
        build_encoder(composed(job, "backbone=mine", *NANO, "model.embed_dim=16", *data))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "model"), [("none", NANO), ("mine", ()), ("mine", NANO)], ids=str
)
def test_build_encoder__drop_path_and_checkpointing_of_the_model(
    tmp_path, monkeypatch, backbone, model
):
    """By one setting each, of a backbone as of random weights; 0.1 unless it says otherwise."""
    monkeypatch.chdir(tmp_path)
    data = ("data=folder", "data.root=photos", "name=x")
    pretrained = build_encoder(composed("finetune", "backbone=none", *NANO, *data))
    save_backbone(Path("mine"), pretrained, mean=[0.5] * 3, std=[0.5] * 3, card="")
    options = ("model.drop_path_rate=0.33", "model.grad_checkpointing=true")
    for settings, rate, checkpointing in (((), 0.1, False), (options, 0.33, True)):
        cfg = composed("finetune", f"backbone={backbone}", *model, *data, *settings)
        modules = list(build_encoder(cfg).model.modules())
        paths = [module.drop_path1 for module in modules if hasattr(module, "drop_path1")]
        rates = [getattr(path, "drop_prob", 0.0) for path in paths]
        assert rates == pytest.approx([0.0, rate / 2, rate])
        assert {m.grad_checkpointing for m in modules if hasattr(m, "grad_checkpointing")} == {
            checkpointing
        }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.img_size_px=80", "no window suits an image of 80 x 80 px"),
        (
            "model.img_size_px=large",
            "model.img_size_px must be a whole number in [1, 16384] or a list of 2 whole numbers "
            "in [1, 16384] or null, got 'large'",
        ),
        ("model.window_size=5", "windows of 5 tokens"),
        ("test_img_size_px=80", "no window suits an image of 80 x 80 px"),
        ("labels.ratio=1.5", "labels.ratio must be a number in (0, 1] or null, got 1.5"),
        ("labels.ratio=few", "labels.ratio must be a number in (0, 1] or null, got 'few'"),
        ("labels.per_class=9", "has 6 training images, fewer than the 9"),
        (
            "callbacks.best.monitor=val/top2",
            "there is no metric val/top2 to monitor; classification has val/loss, val/top1",
        ),
        ("ema_decay=1.0", "ema_decay must be a number in (0, 1) or null, got 1.0"),
    ],
)
def test_finetune__refuses_before_it_starts(workplace, capsys, override, message):
    with pytest.raises(SystemExit) as stop:
        run(override)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("run").exists()


def test_linear_probe__learns_from_train_and_chooses_on_val(workplace, monkeypatch):
    """Twelve images to learn from, seven to choose by; whoever mixes them up has other numbers."""
    sizes = []
    for search in ("linear_grid", "knn_grid"):
        original = getattr(linear_probe, search)

        def watched(train: Any, val: Any, *, original: Any = original, **options: Any) -> Any:
            sizes.extend(
                (len(of.labels), len(on.labels))
                for of, on in zip(train.values(), val.values(), strict=True)
            )
            return original(train, val, **options)

        monkeypatch.setattr(linear_probe, search, watched)
    brief = [each for each in BRIEF if not each.startswith(("trainer", "optim", "schedule"))]
    settings = ("stages=[4]", "poolings=[mean]", "linear.epochs=2", "linear.warmup_epochs=0")
    run_job("linear_probe", composed("linear_probe", *brief, *settings, "knn.ks=[3]"))
    assert sizes == [(12, 7), (12, 7)]

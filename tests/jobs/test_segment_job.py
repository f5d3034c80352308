"""The job of segmentation in whole runs: what it writes, refuses, measures and hands off."""

import csv
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launched import finish
from launched import output as printed
from PIL import Image
from test_finetune_job import composed
from torch._dynamo.utils import counters

from ssl_swin.cli import main
from ssl_swin.encoders.resnet import resnet
from ssl_swin.encoders.windows.blocks import compiled_compute
from ssl_swin.errors import UserError
from ssl_swin.jobs import replay
from ssl_swin.launch.script import run_job
from ssl_swin.weights.backbone import load_backbone, save_backbone
from ssl_swin.weights.segmenter import load_segmenter

BRIEF = (
    "experiment=segment_small",
    "backbone=mine",
    "data=masks",
    "data.root=photos",
    "classes=[dark,light]",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "batch_size=3",
    "model.drop_path_rate=0.0",
    "task.crop_px=32",
    "task.head_channels=8",
    "task.auxiliary_channels=8",
    "task.inference.short_px=32",
    "augment.short_px=32",
    "schedule.warmup_steps=0",
    "optim.lr=0.01",
    "callbacks.predictions.num_images=2",
    "callbacks.predictions.animate=false",
    "run_dir=run",
)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


@pytest.fixture
def workplace(tmp_path: Path, tiny_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backbone with one window, and pictures of two sizes whose light part is class 1."""
    monkeypatch.chdir(tmp_path)
    encoder = tiny_encoder(img_size_px=128, depths=(1, 1, 1, 1))
    save_backbone(Path("mine"), encoder, mean=[0.5] * 3, std=[0.5] * 3, card="")
    generator = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 3)):
        for number in range(count):
            height, width = (40, 56) if number % 2 else (48, 40)
            mask = np.zeros((height, width))
            mask[:, width // 2 :] = 1
            pixels = generator.normal(80 + 100 * mask[..., None], 20, (height, width, 3))
            save(Path("photos/images") / split / f"{number}.png", pixels.clip(0, 255))
            save(Path("photos/masks") / split / f"{number}.png", mask)
    return tmp_path


def run(*overrides: str) -> None:
    run_job("segment", composed("segment", *BRIEF, *overrides))


def rows() -> list[dict[str, str]]:
    with Path("run/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def refusal(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    with pytest.raises(SystemExit) as end:
        run(*overrides)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and not Path("run").exists()
    return error


def test_segment__trains_measures_draws_and_hands_off(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("trainer.max_epochs=4", "test_ratios=[0.5,1.0]", "task.masks.ignore_value=9")
    output = capsys.readouterr().out
    last = {key: value for row in rows() for key, value in row.items() if value}
    best = float(last["val/miou_best"])
    assert f"mIoU       {best:.4f} on val at one scale" in output
    assert f"{float(last['val/miou_multi_scale']):.4f} on val at several scales" in output
    assert 0.3 < best <= 1
    told = [float(row["train/loss"]) for row in rows() if row["train/loss"]]
    assert told[-1] < told[0]
    with Path("run/confusion_val/per_class.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["class"] for row in table] == ["dark", "light"]
    assert sum(float(row["iou_percent"]) for row in table) / 200 == pytest.approx(best, abs=1e-4)
    with Image.open("run/predictions/step_0000012.png") as picture:
        assert picture.width == 4 * (56 + 2) and picture.height > 2 * 48
    assert "<h2>Predictions</h2>" in Path("run/report.html").read_text()
    segmenter = load_segmenter("run")
    assert segmenter.classes == ("dark", "light")
    told = json.loads(Path("run/segmenter/config.json").read_text())
    assert told["label_names"] == ["dark", "light"] and told["task"] == "segmentation"
    right = total = 0
    for number in range(3):
        pixels = torch.from_numpy(np.array(Image.open(f"photos/images/val/{number}.png")))
        truth = torch.from_numpy(np.array(Image.open(f"photos/masks/val/{number}.png")))
        told = segmenter.segment(pixels.permute(2, 0, 1))
        right, total = right + int((told == truth).sum()), total + truth.numel()
    assert right / total == pytest.approx(float(last["val/pixel_accuracy_best"]), abs=1e-6)
    assert "ssl-swin predict run photos run/segments  # or" in output
    options = ["--split", "val", "--workers", "0", "--device", "cpu"]
    assert main(["predict", "run", "photos", "run/segments", *options]) == 0
    assert f"mIoU {100 * best:.2f} %" in capsys.readouterr().out
    backbone = load_backbone("run").encoder.model.state_dict()
    theirs = segmenter.model.encoder.model.state_dict()
    before = load_backbone("mine").encoder.model.state_dict()
    assert all(backbone[name].equal(theirs[name]) for name in backbone)
    assert backbone["norm.weight"].equal(before["norm.weight"])  # no map sees it
    assert not backbone["patch_embed.proj.weight"].equal(before["patch_embed.proj.weight"])


@pytest.mark.slow
def test_segment__a_run_that_goes_on_equals_one_that_was_never_stopped(workplace: Path) -> None:
    run("run_dir=whole", "task.dropout=0.3", "model.drop_path_rate=0.2")
    changed = ("run_dir=parts", "task.dropout=0.3", "model.drop_path_rate=0.2")
    with pytest.raises(SystemExit):
        from ssl_swin.training.callbacks.stop_at_step import StopAtStep

        original = StopAtStep.on_train_batch_end
        try:
            StopAtStep.on_train_batch_end = _stop_at_4(original)  # type: ignore[method-assign]
            run(*changed)
        finally:
            StopAtStep.on_train_batch_end = original  # type: ignore[method-assign]
    run(*changed)
    whole, parts = (
        torch.load(Path(name) / "checkpoints" / "last.ckpt", weights_only=False)
        for name in ("whole", "parts")
    )
    assert whole["global_step"] == parts["global_step"] == 6
    for name, tensor in whole["state_dict"].items():
        assert tensor.equal(parts["state_dict"][name]), name


def _stop_at_4(original: Any) -> Any:
    def hook(self: Any, trainer: Any, *args: Any, **kwargs: Any) -> None:
        original(self, trainer, *args, **kwargs)
        if trainer.global_step == 4:
            raise SystemExit(1)

    return hook


def test_segment__names_a_mask_with_a_value_of_no_class(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = np.zeros((48, 40))
    mask[3, 4] = 7
    save(Path("photos/masks/train/8.png"), mask)
    error = refusal(capsys)
    assert "mask of" in error and "8" in error and "has the value 7" in error
    assert "known is 0 to 1 and 255, left out" in error and "task.masks.class_of" in error


@pytest.mark.slow
def test_segment__binary_masks_in_shards_and_a_window_over_images(workplace: Path) -> None:
    for path in Path("photos/masks").rglob("*.png"):
        save(path, 255 * np.array(Image.open(path)))
    assert main(["pack", "photos", "shards", "--workers", "0"]) == 0
    of_shards = ("data=shards", "data.root=shards", "task.inference.mode=slide")
    run("task.masks.class_of={0:0,255:1}", "task.masks.ignore_value=null", *of_shards)
    assert float(rows()[-1]["val/miou_best"]) > 0
    checkpoint = torch.load("run/checkpoints/last.ckpt", weights_only=False)
    task, readers = replay._parts(replay._configuration(Path("run"), []), checkpoint)
    assert task.classes == ("dark", "light") and readers["train"].num_samples == 9
    names = {f"model.{name}" for name in task.state_dict()}
    assert names == {name for name in checkpoint["state_dict"] if name.startswith("model.")}


@pytest.mark.slow
def test_segment__masks_of_colours_elsewhere_train_as_those_of_values(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a folder of any name by way of pack, check, stats and show to the same weights."""
    run("run_dir=values")
    colours = np.array([[128, 64, 128], [0, 0, 142]])
    for path in Path("photos/masks").rglob("*.png"):
        save(Path("drawn") / path.relative_to("photos/masks"), colours[np.array(Image.open(path))])
    shutil.rmtree("photos/masks")
    told = "--class-of-colour=128-64-128:0,0-0-142:1"
    options = ("--workers", "0", told)
    packing = ["--masks", "drawn", "--classes", "dark,light", "--shard-samples", "3"]
    assert main(["pack", "photos/images", "shards", *packing, *options]) == 0
    assert main(["check", "shards", *options]) == 0
    assert main(["stats", "shards", *options]) == 0
    output = capsys.readouterr().out
    assert "sound: " in output and "  colour 128-64-128 dark: 50 % of the pixels" in output
    setting = "task.masks.class_of_colour={128-64-128:0,0-0-142:1}"
    shown = [word for word in BRIEF if not word.startswith(("classes=", "data"))]
    data = ["data=shards", "data.root=shards", setting]
    assert main(["show", "--out", "batch.png", "segment", *shown, *data]) == 0
    run("run_dir=colours", "data.root=photos/images", "data.masks=drawn", setting)
    values, coloured = (
        torch.load(Path(name) / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        for name in ("values", "colours")
    )
    assert all(coloured[name].equal(tensor) for name, tensor in values.items())
    run("run_dir=packed", *data, "classes=null")
    assert load_segmenter("packed").classes == ("dark", "light")


@pytest.mark.slow
def test_segment__few_images_and_a_note_of_a_class_that_is_nowhere(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        *("labels.number=4", "classes=[dark,light,blue]", "trainer.max_epochs=1"),
        "schedule.warmup_steps=1500",
    )
    output = capsys.readouterr().out
    assert "labels: 4 of 9 training images" in output
    assert "of train that were looked at hold no pixel of class blue" in output
    assert "schedule.warmup_steps=1500 is no less than the run's 1 step" in output


@pytest.mark.slow
def test_segment__one_channel_and_a_network_without_windows(workplace: Path) -> None:
    encoder = resnet(
        img_size_px=64, in_chans=1, depths=(1, 1, 1, 1), block="basic", channels=(8, 8, 16, 16)
    )
    save_backbone(Path("mine"), encoder, mean=[0.5], std=[0.5], card="")
    run(
        "data.channels=1",
        "data.mean=[0.5]",
        "data.std=[0.5]",
        "augment.saturation=null",
        "augment.hue_degrees=null",
    )
    assert load_segmenter("run").model.encoder.in_chans == 1


@pytest.mark.slow
def test_segment__two_devices_judge_every_image_once(workplace: Path) -> None:
    two = [*BRIEF, "trainer.sync_batchnorm=false", "trainer.max_epochs=1", "batch_size=2"]
    finish(two, workplace, 2, job="segment")
    with Path("run/confusion_val/per_class.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert sum(int(row["pixels"]) for row in table) == 2 * 48 * 40 + 40 * 56
    iou = sum(float(row["iou_percent"] or "nan") for row in table) / 200
    assert iou == pytest.approx(float(rows()[-1]["val/miou_best"]), abs=1e-4)
    refused = [*two, "trainer.sync_batchnorm=true", "run_dir=other"]
    finish(refused, workplace, 2, status=2, job="segment")
    assert "set trainer.sync_batchnorm=false" in printed(workplace, 0)


@pytest.mark.slow
def test_segment__five_channels_of_float32(workplace: Path, tiny_encoder: Any) -> None:
    encoder = tiny_encoder(img_size_px=128, in_chans=5, version=2)
    save_backbone(Path("mine"), encoder, mean=[0.5] * 5, std=[0.5] * 5, card="")
    for path in Path("photos/images").rglob("*.png"):
        pixels = np.array(Image.open(path)).transpose(2, 0, 1)[[0, 1, 2, 0, 1]]
        np.save(path.with_suffix(".npy"), pixels.astype(np.float32) / 255)
        path.unlink()
    run(
        "data.channels=5",
        "data.dtype=float32",
        "data.mean=[0.5,0.5,0.5,0.5,0.5]",
        "data.std=[0.5,0.5,0.5,0.5,0.5]",
        "augment.saturation=null",
        "augment.hue_degrees=null",
        "model.grad_checkpointing=true",
        "callbacks.predictions.bands=[[4,1,0],[2]]",
    )
    segmenter = load_segmenter("run")
    assert segmenter.segment(torch.rand(5, 20, 31)).shape == (20, 31)
    with pytest.raises(UserError, match="an image of 5 channels"):
        segmenter.segment(torch.rand(3, 20, 31))
    with pytest.raises(UserError, match="give the folder of its run, which holds that as backbone"):
        load_backbone("run/segmenter")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["classes=1"], "classes must be"),
        (["classes=[a,a]"], "classes must be"),
        (["batch_size=1"], "batch_size=1 leaves one value to a batch norm"),
        (["labels.number=10"], "there are 9 training images, fewer than the 10"),
        (["labels.number=2", "labels.ratio=0.5"], "two answers"),
        (["task.inference.step_px=500"], "leave gaps"),
        (["task._target_=ssl_swin.Classification"], "task"),
        (["model.window_size=4", "model.img_size_px=64"], "window_size=4 model.img_size_px=128"),
        (["test_ratios=[]"], "test_ratios must be"),
        (["data.root=nowhere"], "nowhere"),
        (["data.channels=1", "data.mean=[0.5]", "data.std=[0.5]"], "3 channels"),
    ],
)
def test_segment__refuses_before_anything_is_written(
    workplace: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], words: str
) -> None:
    if "task.inference.step_px=500" in overrides:
        overrides = [*overrides, "task.inference.mode=slide"]
    assert words in refusal(capsys, *overrides)


def test_segment__refuses_data_without_masks(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("photos/masks")
    assert "mask" in refusal(capsys)


@pytest.mark.slow
def test_load_segmenter__refuses_what_is_none(workplace: Path) -> None:
    with pytest.raises(UserError, match=r"mine/config.json does not describe a segmenter"):
        load_segmenter("mine")
    with pytest.raises(UserError, match="is no segmenter"):
        load_segmenter("photos")
    run("trainer.max_epochs=1")
    config = Path("run/segmenter/config.json")
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"label_names": ["a", "b", "c"]}))
    with pytest.raises(UserError, match="does not fit"):
        load_segmenter("run")


@pytest.mark.slow
def test_segment__compiled_gives_the_same_losses(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(*overrides: str) -> list[float]:
        run("task.dropout=0.0", *overrides)
        found = [float(row["train/loss"]) for row in rows() if row["train/loss"]]
        shutil.rmtree("run")
        return found

    expected = losses()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    compiled_compute.cache_clear()
    counters.clear()
    assert losses("compile=true") == pytest.approx(expected, rel=1e-4)
    assert counters["stats"]["unique_graphs"] > 0
    compiled_compute.cache_clear()
    torch._dynamo.reset()

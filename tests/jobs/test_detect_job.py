"""The job of detection in whole runs: what it writes, refuses, measures and hands off."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_objects import CLASSES, NUMBER, WRITERS, drawn, pictures, write_coco, write_shards
from launched import finish, start
from PIL import Image
from test_finetune_job import composed

from ssl_swin.cli import main
from ssl_swin.errors import UserError
from ssl_swin.jobs import replay
from ssl_swin.launch.script import run_job
from ssl_swin.safe_pickle import load_checkpoint
from ssl_swin.weights.backbone import load_backbone, save_backbone
from ssl_swin.weights.detector import load_detector

BRIEF = (
    "experiment=detect_small",
    "backbone=mine",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.check_val_every_n_epoch=1",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "trainer.sync_batchnorm=false",
    "batch_size=2",
    "model.drop_path_rate=0.0",
    "task.channels=8",
    "task.head_channels=16",
    "task.anchor_scale=6",
    "task.num_proposals=40",
    "task.inference.short_px=64",
    "augment.short_px=[64]",
    "schedule.warmup_steps=0",
    "callbacks.predictions.num_images=2",
    "callbacks.predictions.animate=false",
    "run_dir=run",
)
SHARDS = ("data=shards", "data.root=photos", f"classes=[{','.join(CLASSES)}]")


@pytest.fixture
def workplace(tmp_path: Path, tiny_encoder: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small backbone with one window."""
    monkeypatch.chdir(tmp_path)
    encoder = tiny_encoder(img_size_px=128, depths=(1, 1, 1, 1))
    save_backbone(Path("mine"), encoder, mean=[0.5] * 3, std=[0.5] * 3, card="")
    return tmp_path


@pytest.fixture
def shards(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Drawn shapes with masks in tar files."""
    write_shards(Path("photos"))
    assert main(["index", "photos"]) == 0
    capsys.readouterr()
    return workplace


def run(*overrides: str) -> None:
    run_job("detect", composed("detect", *BRIEF, *overrides))


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def last_values(folder: str = "run") -> dict[str, float]:
    """The last value of every metric that has one."""
    values: dict[str, float] = {}
    for row in table(f"{folder}/metrics.csv"):
        values |= {key: float(value) for key, value in row.items() if value not in ("", "nan")}
    return values


def refusal(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    with pytest.raises(SystemExit) as end:
        run(*overrides)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and not Path("run").exists()
    return error


def test_detect__trains_measures_draws_and_hands_off(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(*SHARDS)
    output = capsys.readouterr().out
    found = last_values()
    assert f"box AP     {found['val/map_best']:.4f} on val at one scale" in output
    assert f"mask AP    {found['val/mask_map_best']:.4f}" in output
    assert "1 of 8 images of train that were looked at have no box" in output
    rows = table("run/detections_val/per_class.csv")
    assert [(row["class"], row["objects"]) for row in rows] == [("box", "3"), ("disk", "3")]
    for metric, column in (("map", "ap_percent"), ("mask_map", "mask_ap_percent")):
        mean = sum(float(row[column]) for row in rows) / 200
        assert mean == pytest.approx(found[f"val/{metric}_best"], abs=1e-4)
    with Image.open("run/predictions/step_0000004.png") as picture:
        # Of 64 x 64 and 48 x 64 px; those are enlarged 5 times, these 6 times.
        assert picture.size == (2 * (384 + 2), 16 + 2 * (320 + 2) + 16)
    assert "<h2>Predictions</h2>" in Path("run/report.html").read_text()
    detector = load_detector("run")
    assert detector.classes == CLASSES
    assert json.loads(Path("run/detector/config.json").read_text())["task"] == "detection"
    backbone = load_backbone("run").encoder.model.state_dict()
    before = load_backbone("mine").encoder.model.state_dict()
    assert backbone["norm.weight"].equal(before["norm.weight"])  # no map sees it
    assert not backbone["patch_embed.proj.weight"].equal(before["patch_embed.proj.weight"])
    assert "ssl-swin predict run photos run/objects  # or" in output


@pytest.mark.slow
def test_detect__learns_and_hands_off_what_it_measured(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A detector that finds the shapes says the same of them when it is loaded."""
    run(
        *SHARDS,
        *("trainer.max_epochs=40", "trainer.check_val_every_n_epoch=10", "batch_size=4"),
        *("task.channels=32", "task.head_channels=64", "schedule.milestone_epochs=[35]"),
        *("optim.lr=2e-3", "task.num_proposals=100"),
    )
    found = last_values()
    assert found["val/map_50_best"] > 0.5 and found["val/mask_map_50_best"] > 0.5
    detector = load_detector("run")
    right = total = 0
    for split, _, picture in pictures():
        if split != "val":
            continue
        told = detector.detect(torch.from_numpy(picture.pixels).permute(2, 0, 1))
        assert told.masks is not None and told.masks.shape[1:] == picture.pixels.shape[:2]
        for box, label in zip(picture.boxes, picture.labels, strict=True):
            near = (told.boxes - torch.tensor(box)).abs().amax(dim=1) < 6
            right += bool((near & (told.labels == label) & (told.scores > 0.3)).any())
            total += 1
    assert total == 6 and right >= 4
    capsys.readouterr()
    options = ["--split", "val", "--workers", "0", "--device", "cpu"]
    assert main(["predict", "run", "photos", "run/objects", *options]) == 0
    told = capsys.readouterr().out
    for name, title in (("map", "box AP"), ("map_50", "AP50"), ("mask_map", "mask AP")):
        assert f"{title} {100 * found[f'val/{name}_best']:.2f} %" in told


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_detect__every_format_gives_the_same_boxes(
    workplace: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """From files as they are, and packed: the same objects, and as many of each class."""
    WRITERS[kind](Path("photos"))
    without_masks = ("task.with_masks=false",)
    run(f"data={kind}", "data.root=photos", *without_masks)
    (line,) = re.findall(r"ssl-swin (predict .*)  # or", capsys.readouterr().out)
    assert main([*line.split(), "--split", "val", "--workers", "0", "--device", "cpu"]) == 0
    assert f"box AP {100 * last_values()['val/map_best']:.2f} %" in capsys.readouterr().out
    assert load_detector("run").classes == CLASSES
    (box, disk) = table("run/detections_val/per_class.csv")
    assert box["objects"] == disk["objects"] == "3" and "mask_ap_percent" not in box
    cfg = replay._configuration(Path("run"), [])
    task, readers = replay._parts(cfg, load_checkpoint(Path("run/checkpoints/last.ckpt")))
    assert task.classes == CLASSES and readers["train"].num_samples == NUMBER["train"]
    told = {Path(sample.name).stem: sample for sample in _samples(readers)}
    for _, name, picture in pictures():
        content = json.loads(told[name].member("boxes").data)
        assert np.allclose(content["boxes"], picture.boxes, atol=1e-3), name
        assert content["labels"] == picture.labels
    assert main(["pack", "photos", "packed", f"--{kind}", "photos", "--workers", "0"]) == 0
    run("data=shards", "data.root=packed", "run_dir=of_shards", *without_masks)
    assert last_values("of_shards")["train/loss"] > 0
    assert load_detector("of_shards").classes == CLASSES


def _samples(readers: Any) -> list[Any]:
    return [reader.dataset[i] for reader in readers.values() for i in range(reader.num_samples)]


@pytest.mark.slow
@pytest.mark.parametrize("cascade", [False, True])
def test_detect__masks_of_coco_and_a_report(workplace: Path, cascade: bool) -> None:
    write_coco(Path("photos"))
    task = "cascade_mask_rcnn" if cascade else "mask_rcnn"
    run("data=coco", "data.root=photos", f"task={task}")
    found = last_values()
    assert found["train/loss_mask_1" if cascade else "train/loss_mask"] > 0
    assert "mask_ap_percent" in table("run/detections_val/per_class.csv")[0]
    Path("run/report.html").unlink()
    assert main(["report", "run"]) == 0
    page = Path("run/report.html").read_text()
    assert "<h2>Predictions</h2>" in page and "val/mask_map" in page
    masks = load_detector("run").detect(torch.zeros(3, 40, 50).byte()).masks
    assert masks is not None and masks.shape[1:] == (40, 50)


RANDOM = (
    *SHARDS,
    *("trainer.max_epochs=2", "model.drop_path_rate=0.3", "callbacks.batch_digest.enabled=true"),
    *("augment.short_px=[48,64,80]", "augment.crop_probability=0.5", "augment.crop_px=[32,60]"),
    *("augment.crop_short_px=[56,64]", "callbacks.last.every_n_train_steps=1"),
    *("callbacks.last.every_n_epochs=null", "callbacks.last.save_on_train_epoch_end=null"),
)


def sending(name: str, step: int) -> str:
    settings = f"name:{name},moment:step,number:{step}"
    return f"+callbacks.signal={{_target_:signalling.SendSignal,{settings}}}"


@pytest.mark.slow
@pytest.mark.parametrize(("num_ranks", "signal"), [(1, "SIGKILL"), (2, "SIGTERM"), (2, "SIGKILL")])
@pytest.mark.parametrize("task", ["mask_rcnn", "cascade_mask_rcnn"])
def test_detect__a_run_that_was_killed_equals_one_that_was_not(
    shards: Path, num_ranks: int, signal: str, task: str
) -> None:
    """Weights, images, boxes and masks to the bit."""
    settings = [*BRIEF, *RANDOM, f"task={task}", f"batch_size={2 // num_ranks}"]
    whole, parts = [*settings, "run_dir=whole"], [*settings, "run_dir=parts"]
    finish(whole, shards, num_ranks, job="detect")
    for process in start([*parts, sending(signal, 3)], shards, num_ranks, "detect"):
        process.join()
        assert process.exitcode != 0
    assert load_checkpoint(Path("parts/checkpoints/last.ckpt"))["global_step"] in (2, 3)
    finish(parts, shards, num_ranks, job="detect")
    for rank in range(num_ranks):
        seen, expected = (batches(folder, rank) for folder in ("parts", "whole"))
        assert seen == expected and len(expected) == 8
        assert {"boxes", "masks", "labels"} <= expected[0, 0].keys()
    ended, expected_end = (
        load_checkpoint(Path(folder) / "checkpoints/last.ckpt") for folder in ("parts", "whole")
    )
    assert ended["global_step"] == expected_end["global_step"] == 8
    for name, tensor in expected_end["state_dict"].items():
        assert tensor.equal(ended["state_dict"][name]), name
    assert last_values("parts")["val/map"] == last_values("whole")["val/map"]


def batches(folder: str, rank: int) -> dict[tuple[int, int], dict[str, Any]]:
    """What a rank saw, by epoch and batch; what it saw twice was the same both times."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for text in Path(f"{folder}/batch_digest/rank{rank}.jsonl").read_text().splitlines():
        line = json.loads(text)
        key = line["epoch"], line["batch"]
        assert found.setdefault(key, line) == line
    return found


@pytest.mark.slow
def test_detect__two_devices_judge_every_image_once(shards: Path) -> None:
    finish([*BRIEF, *SHARDS, "batch_size=1"], shards, 2, job="detect")
    rows = table("run/detections_val/per_class.csv")
    assert [row["objects"] for row in rows] == ["3", "3"]
    detector = load_detector("run")
    assert detector.classes == CLASSES
    refused = [*BRIEF, *SHARDS, "trainer.sync_batchnorm=true", "run_dir=other"]
    finish(refused, shards, 2, status=2, job="detect")


@pytest.mark.slow
def test_detect__five_channels_of_float32_and_few_images(
    workplace: Path, tiny_encoder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tiny_encoder(img_size_px=128, in_chans=5, version=2)
    save_backbone(Path("mine"), encoder, mean=[0.5] * 5, std=[0.5] * 5, card="")
    write_coco(Path("photos"))
    for path in Path("photos").rglob("*.png"):
        pixels = np.array(Image.open(path)).transpose(2, 0, 1)[[0, 1, 2, 0, 1]]
        np.save(path.with_suffix(".npy"), pixels.astype(np.float32) / 255)
        path.unlink()
    for path in Path("photos").rglob("*.json"):
        path.write_text(path.read_text().replace(".png", ".npy"))
    five = ["data=coco", "data.root=photos", "data.channels=5", "data.dtype=float32"]
    statistics = [f"data.{name}=[0.5,0.5,0.5,0.5,0.5]" for name in ("mean", "std")]
    drawn_of = "callbacks.predictions.bands=[[4,1,0],[2]]"
    run(*five, *statistics, drawn_of, "labels.number=4", "model.grad_checkpointing=true")
    assert "labels: 4 of 8 training images" in capsys.readouterr().out
    with Image.open("run/predictions/step_0000002.png") as picture:
        assert picture.width == 4 * (384 + 2)
    assert len(load_detector("run").detect(torch.rand(5, 20, 31)).boxes) >= 0
    with pytest.raises(UserError, match="5 channels"):
        load_detector("run").detect(torch.rand(3, 20, 31))


@pytest.mark.slow
def test_detect__a_plan_writes_nothing(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(*SHARDS, "plan=true")
    output = capsys.readouterr().out
    assert "plan of run" in output and "detection of 2 classes, Mask R-CNN" in output
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["classes=0"], "classes must be"),
        (["classes=[a,a]"], "classes must be"),
        (["classes=null"], "the data does not name the classes of its boxes"),
        (["classes=1"], "have the label 1, and there are 1 class"),
        (["labels.number=9"], "there are 8 training images, fewer than the 9"),
        (["task._target_=ssl_swin.Segmentation"], "there is no setting task.cascade"),
        (["model.window_size=4", "model.img_size_px=64"], "window_size=4 model.img_size_px=128"),
        (["data.root=nowhere"], "nowhere"),
        (["compile=true"], "every batch of a detection has another one"),
        (["task.inference.short_px=0"], "short_px must be"),
        (["augment.short_px=[]"], "short_px must be"),
    ],
)
def test_detect__refuses_before_anything_is_written(
    shards: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], words: str
) -> None:
    assert words in refusal(capsys, *SHARDS, *overrides)


def test_detect__refuses_masks_that_are_not_there(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(Path("photos"), masks=False)
    assert main(["index", "photos"]) == 0
    assert "task.with_masks=false" in refusal(capsys, *SHARDS, "task.with_masks=true")


def test_drawn__pictures_are_of_two_shapes_and_differ() -> None:
    """The world of these tests, which would otherwise prove little."""
    first, empty = drawn("train", 0), drawn("train", 1)
    assert first.labels == [0, 1] and empty.labels == [] and first.pixels.shape == (64, 64, 3)
    assert first.boxes != drawn("val", 0).boxes
    for box, mask in zip(first.boxes, first.masks, strict=True):
        assert mask[box[1] : box[3], box[0] : box[2]].sum() == mask.sum() > 100

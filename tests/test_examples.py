"""The examples run as their docstrings say; what they define resumes to the bit."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SMALL = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=24",
    "data.prepare.num_val=8",
    "batch_size=4",
    "num_workers=1",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.enable_progress_bar=false",
    "callbacks.batch_digest.enabled=true",
    "callbacks.last.every_n_epochs=null",
    "callbacks.last.every_n_train_steps=8",
    "callbacks.last.save_on_train_epoch_end=null",
)


def python(*arguments: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_resumed_to_the_bit(run: Path, num_steps: int, from_step: int) -> None:
    """Every step has the same loss before and after the resume, and none is missing."""
    losses: dict[int, list[str]] = {}
    for line in map(json.loads, (run / "batch_digest/rank0.jsonl").read_text().splitlines()):
        losses.setdefault(line["step"], []).append(line["loss"])
    repeated = num_steps - from_step
    expected = from_step * [1] + repeated * [2]
    assert [len(losses[step]) for step in range(1, num_steps + 1)] == expected
    assert all(len(set(values)) == 1 for values in losses.values())


def test_two_views__trains_draws_and_resumes_to_the_bit(tmp_path: Path) -> None:
    command = (str(ROOT / "pretrain.py"), "--config-dir", str(EXAMPLES / "conf"))
    command += ("objective=two_views", "name=own", *SMALL)
    printed = python(*command, folder=tmp_path)
    assert "two views, momentum 0.99" in printed
    run = tmp_path / "runs/pretrain/own"
    columns = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "train/similarity", "val/loss", "probe/knn_top1/stage3"} <= {*columns}
    figure = Image.open(max((run / "reconstructions").glob("*.png")))
    assert figure.width == 2 * (96 + 2)
    assert (run / "backbone/model.safetensors").is_file()
    assert not (run / "backbone/simmim.safetensors").exists()
    assert "continuing from" in python(*command, folder=tmp_path)  # from step 8 of 12
    assert_resumed_to_the_bit(run, num_steps=12, from_step=8)


def test_foreground__trains_on_masks_draws_and_resumes_to_the_bit(tmp_path: Path) -> None:
    python(str(EXAMPLES / "foreground.py"), "discs", folder=tmp_path)
    command = (str(ROOT / "finetune.py"), "--config-dir", str(EXAMPLES / "conf"))
    command += ("task=foreground", "data=shards", "data.root=discs", "backbone=none", "name=own")
    command += (*(option for option in SMALL if "prepare" not in option), "model=swin_nano")
    command += (
        "augment.auto_augment=null",
        "batch_size=8",
        "callbacks.last.every_n_train_steps=12",
    )
    assert "finished own: 16 steps" in python(*command, folder=tmp_path)
    run = tmp_path / "runs/finetune/own"
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    accuracies = [float(row["val/accuracy"]) for row in rows if row["val/accuracy"]]
    assert len(accuracies) == 2  # after each of two epochs
    (best,) = (float(row["val/accuracy_best"]) for row in rows if row["val/accuracy_best"])
    assert best == max(accuracies) and all(0 < value <= 1 for value in accuracies)
    figure = Image.open(max((run / "figures").glob("*.png")))
    assert figure.width == 3 * (96 + 2)
    weights = load_file(run / "segmenter/head.safetensors")
    assert weights["weight"].shape == (2, 32, 1, 1)
    timm.create_model(f"local-dir:{run}/segmenter", pretrained=True)  # as the run says
    assert "continuing from" in python(*command, folder=tmp_path)
    assert_resumed_to_the_bit(run, num_steps=16, from_step=12)


def test_foreground__trains_on_a_folder_of_images_and_masks(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]
    for split, number in (("train", 24), ("val", 8)):
        for index in range(number):
            (y, x), radius = generator.integers(20, 76, 2), generator.integers(10, 30)
            disc = ((rows - y) ** 2 + (columns - x) ** 2 < radius**2).astype(np.uint8)
            noise = generator.integers(0, 100, (96, 96, 3)) + 120 * disc[..., None]
            for folder, pixels in (("images", noise), ("masks", disc)):
                path = tmp_path / f"discs/{folder}/{split}/{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    command = (str(ROOT / "finetune.py"), "--config-dir", str(EXAMPLES / "conf"))
    command += ("task=foreground", "data=folder", "data.root=discs", "backbone=none", "name=own")
    command += (*(option for option in SMALL if "prepare" not in option), "model=swin_nano")
    printed = python(*command, "augment.auto_augment=null", folder=tmp_path)
    assert "note: masks: 32 of masks/ pair with 32 of images/" in printed.splitlines()
    assert "finished own: 12 steps" in printed
    rows_of_run = (tmp_path / "runs/finetune/own/metrics.csv").read_text().splitlines()
    accuracies = [float(row["val/accuracy"] or 0) for row in csv.DictReader(rows_of_run)]
    assert 0.5 < max(accuracies) <= 1


def test_embed_folder__finds_the_image_that_is_most_alike(tmp_path: Path) -> None:
    python(str(ROOT / "pretrain.py"), *SMALL, "name=x", "callbacks.probes=null", folder=tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for name, pixels in {"a": noise[0], "b": noise[0] ^ 1, "c": noise[1] // 8}.items():
        Image.fromarray(pixels).save(tmp_path / f"photos/{name}.png")
    script = str(EXAMPLES / "embed_folder.py")
    printed = python(script, "runs/pretrain/x", "photos", folder=tmp_path)
    assert printed.splitlines()[0].startswith("a.png -> b.png")
    assert printed.splitlines()[1].startswith("b.png -> a.png")

"""A detector's hand-off: loaded, it detects what the task did; what does not fit is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ssl_swin
from ssl_swin.errors import UserError
from ssl_swin.pixels import normalize
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.tasks.detection import Detection
from ssl_swin.weights.backbone import save_task
from ssl_swin.weights.detector import is_detector

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


@pytest.fixture
def saved(tiny_encoder, tmp_path) -> tuple[Detection, Path]:
    task = Detection(
        tiny_encoder(img_size_px=128),
        ["a", "b"],
        cascade=False,
        with_masks=True,
        channels=8,
        head_channels=16,
        anchor_scale=4,
        anchor_ratios=[0.5, 2.0],
        anchors_inside=False,
        num_proposals=40,
        proposal_loss="l1",
        box_loss="l1",
        inference=DetectInference(short_px=48, least_score=0.0, most_objects=10),
    ).eval()
    folder = tmp_path / "run" / "detector"
    save_task(folder, task, mean=MEAN, std=STD, card="")
    return task, folder


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_load_detector__detects_what_the_task_does(saved, dtype):
    task, folder = saved
    pixels = torch.randint(0, 255, (3, 50, 70)).to(dtype)
    image = normalize(pixels, MEAN, STD)
    expected = task.inference.detections(task.detect, image)
    assert len(expected.boxes) == 10
    for place in (folder, folder.parent):
        loaded = ssl_swin.load_detector(place)
        found = loaded.detect(pixels)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert loaded.classes == ("a", "b") and loaded.inference == task.inference
    assert is_detector(folder) and not is_detector(folder.parent)
    with pytest.raises(UserError, match=r"an image of 3 channels, .* got \(1, 50, 70\)"):
        loaded.detect(pixels[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told["head"].update(channels=0), "channels must be .* at least 1, got 0"),
        (lambda told: told["head"].update(depth=3), "does not describe a detector"),
        (lambda told: told.pop("inference"), "does not describe a detector"),
        (lambda told: told["head"].update(cascade=True), "does not fit the config.json beside it"),
        (lambda told: told.update(label_names=["a"]), "does not fit the config.json beside it"),
    ],
)
def test_load_detector__refuses_a_configuration_that_does_not_fit(saved, change, message):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        ssl_swin.load_detector(folder)


def test_load_detector__refuses_other_weights_and_other_folders(saved, tmp_path):
    _, folder = saved
    weights = load_file(folder / "model.safetensors")
    weights.pop("rcnn.norms.0.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"rcnn.norms.0.weight differ"):
        ssl_swin.load_detector(folder)
    with pytest.raises(UserError, match=r"is no detector: .* finished run of detect.py"):
        ssl_swin.load_detector(tmp_path)

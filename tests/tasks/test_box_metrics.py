"""COCO's numbers against pycocotools' on a golden case, by hand, and over devices."""

import builtins
import importlib.util
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from ssl_swin.errors import UserError
from ssl_swin.tasks.box_metrics import NUMBERS, CocoEvaluation, Truth, coco_metrics
from ssl_swin.tasks.detections import Detections

SHARED = Path(__file__).parents[3] / "shared" / "golden"
NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def golden_images():
    """Returns images of the golden case, with labels without gaps, and what is expected."""
    from pycocotools import mask

    folder = Path(os.environ.get("SSL_SWIN_GOLDEN", SHARED)) / "dense"
    if not folder.is_dir():
        pytest.skip("../shared/golden/dense is not here")
    parts = ("ground_truth", "detections", "expected")
    truth, found, expected = (
        json.loads((folder / f"coco_{part}.json").read_text()) for part in parts
    )
    label = {each["id"]: number for number, each in enumerate(truth["categories"])}

    def tensors(given):
        xywh = torch.tensor([each["bbox"] for each in given]).view(-1, 4)
        boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
        labels = torch.tensor([label[each["category_id"]] for each in given], dtype=torch.int64)
        masks = torch.from_numpy(
            np.stack([mask.decode(each["segmentation"]) for each in given])
            if given
            else np.zeros((0, 120, 160), np.uint8)
        )
        return boxes, labels, masks

    images = []
    for image in truth["images"]:
        true = [each for each in truth["annotations"] if each["image_id"] == image["id"]]
        told = [each for each in found if each["image_id"] == image["id"]]
        boxes, labels, masks = tensors(told)
        scores = torch.tensor([each["score"] for each in told])
        crowd = torch.tensor([bool(each["iscrowd"]) for each in true], dtype=torch.bool)
        areas = torch.tensor([each["area"] for each in true])
        detections = Detections(boxes, scores, labels, masks.bool())
        images.append((detections, Truth(*tensors(true), crowd, areas)))
    return images, expected


def evaluated(images, **settings):
    evaluation = CocoEvaluation(3, **{"with_masks": True, **settings})
    for image in images:
        evaluation.add(*image)
    return evaluation


def assert_expected(numbers, expected):
    for prefix, kind in (("", "bbox"), ("mask_", "segm")):
        for name, theirs in zip(NUMBERS, NAMES, strict=True):
            value = expected[kind][theirs]
            if value < 0:
                assert math.isnan(numbers[f"{prefix}{name}"])
            else:
                assert numbers[f"{prefix}{name}"] == pytest.approx(value, abs=1e-7)


def test_numbers__are_those_of_pycocotools():
    images, expected = golden_images()
    evaluation = evaluated(images)
    assert_expected(evaluation.numbers(), expected)
    for kind in ("bbox", "segm"):
        theirs = [*expected[kind]["per_category_AP"].values()]
        ours = evaluation.of_classes(of_masks=kind == "segm").tolist()
        wanted = [math.nan if value < 0 else value for value in theirs]
        assert ours == pytest.approx(wanted, abs=1e-7, nan_ok=True)


def boxed(*boxes):
    return torch.tensor([*boxes], dtype=torch.float32).view(-1, 4)


def truth(boxes, labels, crowd=None):
    crowd = torch.tensor(crowd or [False] * len(labels), dtype=torch.bool)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return Truth(boxes, torch.tensor(labels, dtype=torch.int64), None, crowd, areas)


def found(boxes, labels, scores):
    return Detections(boxes, torch.tensor(scores), torch.tensor(labels, dtype=torch.int64), None)


def test_numbers__by_hand():
    """One object found with an IoU of 0.64, one wrong detection that is surer, one class unseen."""
    image = (
        found(boxed([50, 50, 60, 60], [0, 0, 64, 100]), [0, 0], [0.9, 0.8]),
        truth(boxed([0, 0, 100, 100]), [0]),
    )
    numbers = evaluated([image], with_masks=False).numbers()
    assert numbers["map_50"] == pytest.approx(0.5)  # precision 1 of 2 at every recall
    assert numbers["map_75"] == 0
    assert numbers["map"] == pytest.approx(0.5 * 3 / 10)  # at 0.5, 0.55 and 0.6
    assert numbers["map_large"] == pytest.approx(
        3 / 10
    )  # where the wrong one is too small to count
    assert math.isnan(numbers["map_small"])
    assert numbers["mar_1"] == 0 and numbers["mar_10"] == pytest.approx(3 / 10)


def test_numbers__a_crowd_counts_as_nothing():
    detections = found(boxed([0, 0, 10, 10], [20, 20, 24, 24]), [0, 0], [0.5, 0.9])
    boxes = boxed([0, 0, 10, 10], [18, 18, 60, 60])
    of_crowd = evaluated([(detections, truth(boxes, [0, 0], [False, True]))], with_masks=False)
    assert of_crowd.numbers()["map"] == pytest.approx(1.0)
    of_object = evaluated([(detections, truth(boxes, [0, 0]))], with_masks=False)
    assert of_object.numbers()["map"] == pytest.approx(0.5 * 51 / 101)


def test_numbers__of_no_detection_and_of_no_object():
    nothing = found(boxed(), [], [])
    missed = evaluated([(nothing, truth(boxed([0, 0, 9, 9]), [1]))], with_masks=False)
    assert missed.numbers()["map"] == 0
    empty = evaluated([(nothing, truth(boxed(), []))], with_masks=False)
    assert math.isnan(empty.numbers()["map"])
    assert math.isnan(evaluated([], with_masks=False).numbers()["map"])
    mistaken = found(boxed([0, 0, 9, 9]), [0], [0.9])
    seen = [(mistaken, truth(boxed(), [])), (mistaken, truth(boxed([0, 0, 9, 9]), [0]))]
    assert evaluated(seen, with_masks=False).numbers()["map"] == pytest.approx(0.5)


def test_metrics__share_one_evaluation():
    metrics = coco_metrics(2, with_masks=False)
    assert "map" in metrics and not any(name.startswith("mask") for name in metrics)
    box = boxed([0, 0, 10, 10])
    for metric in metrics.values():
        metric.update(found(box, [0], [0.7]), truth(box, [0]))
    assert metrics["map"].compute() == 1.0 and metrics["mar_100"].compute() == 1.0
    for metric in metrics.values():
        metric.reset()
    for metric in metrics.values():
        metric.update(found(box, [1], [0.7]), truth(box, [0]))
    assert metrics["map"].compute() == 0.0  # of the second image alone
    assert {*coco_metrics(2, with_masks=True)} == {
        prefix + name for prefix in ("", "mask_") for name in metrics
    }


def rank(number, address):
    distributed.init_process_group(
        "gloo", init_method=f"file://{address}", rank=number, world_size=2
    )
    images, expected = golden_images()
    for shares in ((images[:4], images[4:]), (images, [])):  # and one device has no image
        metrics = coco_metrics(3, with_masks=True)
        for image in shares[number]:
            for metric in metrics.values():
                metric.update(*image)
        assert metrics["map"].compute().item() == pytest.approx(expected["bbox"]["AP"], abs=1e-7)
        assert_expected(metrics["map"].evaluation.numbers(), expected)
    distributed.destroy_process_group()


@pytest.mark.slow
def test_numbers__are_of_the_images_of_all_devices(tmp_path):
    golden_images()
    multiprocessing.spawn(rank, (tmp_path / "store",), nprocs=2)


def test_metrics__say_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'ssl_swin\[detection\]'"):
        coco_metrics(2, with_masks=False)


def test_numbers__print_nothing(capfd, monkeypatch):
    monkeypatch.setattr(builtins, "print", lambda *_: pytest.fail("something is printed"))
    box = boxed([0, 0, 10, 10])
    evaluated([(found(box, [0], [0.7]), truth(box, [0]))], with_masks=False).numbers()
    assert capfd.readouterr() == ("", "")

"""Counts of pixels against the original's numbers and torchmetrics', and by hand."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from ssl_swin.data.mask_classes import IGNORED
from ssl_swin.tasks.pixel_metrics import MeanClassAccuracy, MeanIoU, PixelAccuracy

SHARED = Path(__file__).parents[3] / "shared" / "golden"
KINDS = {"mean_iou": MeanIoU, "mean_class_accuracy": MeanClassAccuracy}


@pytest.fixture(scope="module")
def golden():
    folder = Path(os.environ.get("SSL_SWIN_GOLDEN", SHARED)) / "dense"
    if not folder.is_dir():
        pytest.skip("../shared/golden/dense is not here")
    arrays = dict(np.load(folder / "miou.npz"))
    pairs = []
    for number in range(3):
        truth = torch.from_numpy(arrays[f"truth{number}"]).long()
        truth[truth == 255] = IGNORED
        pairs.append((torch.from_numpy(arrays[f"prediction{number}"]), truth))
    return json.loads((folder / "miou.json").read_text()), arrays, pairs


def counted(kind, pairs, num_classes=6):
    metric = kind(num_classes)
    for pair in pairs:
        metric.update(*pair)
    return metric


def test_metrics__are_the_originals(golden):
    facts, arrays, pairs = golden
    for name, kind in KINDS.items():
        assert counted(kind, pairs).compute().item() == pytest.approx(facts[name], abs=1e-7)
    accuracy = counted(PixelAccuracy, pairs).compute().item()
    assert accuracy == pytest.approx(facts["pixel_accuracy"], abs=1e-7)
    iou = counted(MeanIoU, pairs)
    assert iou.of_classes().tolist() == pytest.approx(facts["iou"], abs=1e-12)
    for ours, theirs in (("both", "intersection"), ("predicted", "predicted"), ("true", "true")):
        assert getattr(iou, ours).tolist() == arrays[theirs].tolist()


def test_mean_iou__leaves_out_a_class_that_is_nowhere(golden):
    facts, _, pairs = golden
    merged = [(torch.where(a == 3, 2, a.long()), torch.where(b == 3, 2, b)) for a, b in pairs]
    metric = counted(MeanIoU, merged)
    expected = facts["without_class_3"]
    assert metric.compute().item() == pytest.approx(expected["mean_iou"], abs=1e-7)
    assert math.isnan(metric.of_classes()[3]) and expected["iou"][3] is None
    theirs = MulticlassJaccardIndex(6, average="macro", ignore_index=IGNORED)
    for predicted, classes in merged:
        theirs.update(predicted, classes)
    assert theirs.compute().item() == pytest.approx(expected["mean_iou"], abs=1e-4)


def test_metrics__by_hand():
    predicted = torch.tensor([[0, 0, 1, 2, 2]])
    classes = torch.tensor([[0, 1, 1, 0, IGNORED]])
    # Class 0: 1 of 3; class 1: 1 of 2; class 2: predicted once, never true; class 3: nowhere.
    pairs = [(predicted, classes)]
    iou = counted(MeanIoU, pairs, num_classes=4)
    assert iou.of_classes().tolist()[:3] == pytest.approx([1 / 3, 1 / 2, 0.0])
    assert iou.compute().item() == pytest.approx((1 / 3 + 1 / 2) / 3)
    assert counted(MeanClassAccuracy, pairs, 4).compute().item() == pytest.approx(1 / 2)
    assert counted(PixelAccuracy, pairs, 4).compute().item() == pytest.approx(1 / 2)


def test_metrics__count_pixels_of_all_images_together():
    first = (torch.zeros(1, 9).long(), torch.zeros(1, 9).long())
    second = (torch.zeros(1, 1).long(), torch.ones(1, 1).long())
    assert counted(PixelAccuracy, [first, second], 2).compute().item() == pytest.approx(0.9)
    assert counted(MeanIoU, [first, second], 2).compute().item() == pytest.approx(0.45)


def test_metrics__of_nothing_are_nan():
    for kind in (MeanIoU, MeanClassAccuracy, PixelAccuracy):
        metric = counted(kind, [(torch.zeros(2).long(), torch.full((2,), IGNORED))], 3)
        assert math.isnan(metric.compute())

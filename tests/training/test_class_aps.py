"""The table of a detector's classes."""

import pytest
import torch

from ssl_swin.tasks.box_metrics import CocoEvaluation, Truth
from ssl_swin.tasks.detections import Detections
from ssl_swin.training.callbacks.class_aps import class_rows

BOXES = torch.tensor([[0.0, 0, 20, 20], [30, 30, 60, 60]])


@pytest.mark.parametrize("with_masks", [False, True])
def test_class_rows__objects_and_precision_of_each_class(with_masks: bool) -> None:
    """The square is found, its mask is not; the disk is missed; there is no cat."""
    evaluation = CocoEvaluation(3, with_masks=with_masks)
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, :20, :20] = masks[1, 30:60, 30:60] = 1
    truth = Truth(BOXES, torch.tensor([0, 1]), masks, torch.zeros(2).bool(), torch.ones(2) * 400)
    told = Detections(
        BOXES[:1], torch.tensor([0.9]), torch.tensor([0]), torch.zeros(1, 64, 64).bool()
    )
    evaluation.add(told, truth)
    rows = class_rows(("square", "disk", "cat"), evaluation)
    of_masks = (["0.00"], ["0.00"], [""]) if with_masks else ([], [], [])
    assert [list(row) for row in rows] == [
        ["square", 1, "100.00", *of_masks[0]],
        ["disk", 1, "0.00", *of_masks[1]],
        ["cat", 0, "", *of_masks[2]],
    ]

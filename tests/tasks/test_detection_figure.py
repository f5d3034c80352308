"""The figure of detection: tiles of images, and their objects in px of the tiles."""

import torch

from ssl_swin.data.detect_samples import DetectSample, collate_detections
from ssl_swin.figure import ObjectColumn
from ssl_swin.tasks.detection_figure import detection_figure
from ssl_swin.tasks.detections import Detections

CLASSES = ("a", "b")


def sample(height: int, width: int, boxes: list[list[float]], *, masks: bool) -> DetectSample:
    number = len(boxes)
    return DetectSample(
        torch.zeros(3, height, width, dtype=torch.uint8),
        torch.tensor(boxes).reshape(-1, 4),
        torch.arange(number),
        torch.ones(number, height, width, dtype=torch.uint8) if masks else None,
        torch.zeros(number, dtype=torch.bool),
        torch.ones(number),
        "name",
    )


def found(boxes: list[list[float]], scores: list[float]) -> Detections:
    return Detections(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(scores),
        torch.zeros(len(boxes), dtype=torch.int64),
        None,
    )


def test_figure__scales_large_images_down_and_small_ones_up_by_whole_factors() -> None:
    samples = [
        sample(640, 960, [[64.0, 32, 128, 96]], masks=True),
        sample(100, 90, [[10.0, 20, 30, 50], [0, 0, 9, 9]], masks=True),
    ]
    batch = collate_detections(samples)
    images = torch.zeros(2, 3, *batch.pixels.shape[-2:])
    images[1, :, :100, :90] = torch.rand(3, 100, 90)
    (column,) = detection_figure(images, batch, [], CLASSES)
    assert isinstance(column, ObjectColumn) and column.classes == CLASSES
    assert column.images.shape == (2, 3, 320, 480)
    enlarged = images[1, :, :100, :90].repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert column.images[1, :, :300, :270].equal(enlarged)
    assert not column.images[1, :, 300:].any() and not column.images[1, :, :, 270:].any()
    large, small = column.objects
    assert large.boxes.tolist() == [[32, 16, 64, 48]] and large.scores is None
    assert small.boxes.tolist() == [[30, 60, 90, 150], [0, 0, 27, 27]]
    assert large.masks is not None and large.masks.shape == (1, 320, 480)
    assert small.masks is not None and small.masks.all() and small.masks.shape == (2, 300, 270)


def test_figure__shows_the_surest_detections() -> None:
    batch = collate_detections([sample(320, 320, [], masks=False)])
    boxes = [[float(at), 0, 300, 300] for at in range(120)]
    scores = [0.2, 0.31, 0.9, *(0.4 for _ in range(117))]
    truth, told = detection_figure(
        torch.zeros(1, 3, 320, 320), batch, [found(boxes, scores)], CLASSES
    )
    assert isinstance(truth, ObjectColumn) and isinstance(told, ObjectColumn)
    assert len(truth.objects[0].boxes) == 0
    (drawn,) = told.objects
    assert drawn.scores is not None and len(drawn.scores) == 100
    assert drawn.scores.diff().max() <= 0 and drawn.scores[0] == 0.9
    assert drawn.boxes[0, 0] == 2 and 0 not in drawn.boxes[:, 0]


def test_figure__of_nothing_sure_is_an_image_without_boxes() -> None:
    batch = collate_detections([sample(320, 320, [[0.0, 0, 9, 9]], masks=True)])
    told = detection_figure(
        torch.zeros(1, 3, 320, 320), batch, [found([[0, 0, 9, 9]], [0.29])], CLASSES
    )[1]
    assert isinstance(told, ObjectColumn) and told.objects[0].boxes.shape == (0, 4)

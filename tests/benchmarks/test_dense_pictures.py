"""`benchmarks.dense.pictures`: the truth, and what the networks of a study see."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.dense import pictures
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.data.sample import Sample
from ssl_swin.errors import UserError
from ssl_swin.figure import ClassColumn, ObjectColumn

RUNS = {"random": Path("a"), "sparse": Path("b")}
PIXELS = torch.zeros(3, 4, 4)


def test_segmented__shows_the_truth_and_each_segmenters_classes(monkeypatch: pytest.MonkeyPatch):
    def load(run: Path) -> Any:
        told = torch.full((4, 4), RUNS["sparse"] == run).long()
        masks = MaskClasses(reduce_zero_label=True)
        return SimpleNamespace(masks=masks, classes=("ground", "cell"), segment=lambda _: told)

    monkeypatch.setattr(pictures, "load_segmenter", load)
    mask = torch.tensor([[1, 2, 2, 0]]).repeat(4, 1)
    figure = pictures.segmented(RUNS, [Sample(PIXELS, mask)], PIXELS[None])
    assert [column.title for column in figure] == ["input", "truth", "random", "sparse"]
    labels = [each.labels for each in figure if isinstance(each, ClassColumn)]
    assert labels[0][0, 0].tolist() == [0, 1, 1, -1]
    assert [int(each.unique()) for each in labels[1:]] == [0, 1]


def test_detected__shows_the_objects_that_are_sure(monkeypatch: pytest.MonkeyPatch):
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0]])
    found = SimpleNamespace(
        boxes=boxes, labels=torch.tensor([0, 0]), scores=torch.tensor([0.9, 0.2])
    )
    detector = SimpleNamespace(classes=("tree",), detect=lambda _: found)
    monkeypatch.setattr(pictures, "load_detector", lambda _: detector)
    sample = Sample(PIXELS, boxes=boxes, box_labels=torch.tensor([0, 0]))
    figure = pictures.detected(RUNS, [sample], PIXELS[None])
    assert [column.title for column in figure] == ["truth", "random", "sparse"]
    drawn = [each.objects[0].boxes.tolist() for each in figure if isinstance(each, ObjectColumn)]
    assert drawn == [boxes.tolist(), boxes[:1].tolist(), boxes[:1].tolist()]


def test_as_images__refuses_those_that_no_figure_can_hold():
    sizes = [Sample(torch.zeros(3, side, 4, dtype=torch.uint8)) for side in (4, 5)]
    with pytest.raises(UserError, match=r"8-bit images of one size.*give --images 1"):
        pictures.as_images(sizes)
    with pytest.raises(UserError, match="float32"):
        pictures.as_images([Sample(PIXELS)])
    white = Sample(torch.full((3, 4, 4), 255, dtype=torch.uint8))
    assert pictures.as_images([white, white]).eq(1).all()


def test_main__names_a_study_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        pictures.main([str(tmp_path), str(tmp_path / "a.png"), "--backbones", "random"])
    assert ended.value.code == 2
    assert "random_0_all is no run" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()

"""`ssl-swin predict` of detectors: results and precision are what the detector and COCO say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from worlds import MEAN, STD, contents, interrupt_after, predict, rows_in

import ssl_swin
from ssl_swin.cli import main
from ssl_swin.data.detect_samples import collate_detections
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.rle import decode_rle
from ssl_swin.data.sources.boxes.opening import open_boxes
from ssl_swin.data.sources.boxes.reading import BoxReading
from ssl_swin.inference.predictors.detection import DetectPredictor
from ssl_swin.pixels import normalize
from ssl_swin.tasks.detecting import DetectInference
from ssl_swin.tasks.detection import Detection
from ssl_swin.tasks.detections import Detections
from ssl_swin.weights.backbone import save_backbone, save_task
from ssl_swin.weights.detector import load_detector

coco = pytest.importorskip("faster_coco_eval")
mask_codes = pytest.importorskip("faster_coco_eval.core.mask")

CLASSES = ["ant", "bee"]
CATEGORIES = {"bee": 7, "ant": 3, "fly": 9}  # ids of the file, in another order than labels
SIZES = ((40, 56), (64, 47), (50, 41), (48, 48))
SETTINGS: dict[str, Any] = {
    **{"cascade": False, "with_masks": True, "channels": 8, "head_channels": 16},
    **{"anchor_scale": 4, "anchor_ratios": [0.5, 1.0, 2.0], "anchors_inside": False},
    **{"num_proposals": 40, "proposal_loss": "l1", "box_loss": "l1"},
    "inference": DetectInference(short_px=None, least_score=0.0, most_objects=6),
}


def build(encoder: Any, **changes: Any) -> Detection:
    torch.manual_seed(0)
    task = Detection(encoder, CLASSES, **{**SETTINGS, **changes}).eval()
    with torch.no_grad():
        for parameter in task.rcnn.heads.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for head in task.rcnn.heads.mask_heads or ():
            head[1].mask_fcn_logits.weight.normal_(std=9)  # else all masks were empty
            head[1].mask_fcn_logits.bias.zero_()
    return task


@pytest.fixture
def task(
    tmp_path: Path, tiny_encoder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Detection:
    """A run with a detector, and four images with a COCO file of what is in some of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(DetectPredictor, "part_images", 2)
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    for number, size in enumerate(SIZES):
        pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")
    made = build(tiny_encoder(img_size_px=128))
    save_task(Path("run/detector"), made, mean=MEAN, std=STD, card="")
    save_backbone(Path("run/backbone"), made.encoder, mean=MEAN, std=STD, card="")
    Path("truth.json").write_text(json.dumps(truth()))
    return made


def told_by(model: str = "run") -> list[Detections]:
    detector = load_detector(model)
    read = (np.array(Image.open(f"photos/{number}.png")) for number in range(len(SIZES)))
    return [detector.detect(torch.from_numpy(each).permute(2, 0, 1)) for each in read]


def truth() -> dict[str, Any]:
    """Some of the objects that are detected, a little smaller, and none in the last image."""
    annotations: list[dict[str, Any]] = []
    for image, found in enumerate(told_by()[:-1]):
        sides = (found.boxes[:, 2:] - found.boxes[:, :2]).amin(dim=1)
        for at in (sides > 2).nonzero().flatten().tolist()[::2]:
            x0, y0, x1, y1 = found.boxes[at].tolist()
            box = [x0 + 0.18 * (x1 - x0), y0, 0.82 * (x1 - x0), y1 - y0]
            assert found.masks is not None
            mask = np.asfortranarray(found.masks[at].numpy().astype(np.uint8))
            rle = mask_codes.encode(mask)
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": 100 + image, "bbox": box},
                    **{"iscrowd": 0, "area": box[2] * box[3]},
                    "category_id": CATEGORIES[CLASSES[int(found.labels[at])]],
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    return {
        "images": [
            {"id": 100 + n, "file_name": f"{n}.png", "height": size[0], "width": size[1]}
            for n, size in enumerate(SIZES)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in CATEGORIES.items()],
    }


def same_objects(results: list[dict[str, Any]], found: Detections, ids: list[int]) -> None:
    boxes = torch.tensor([each["bbox"] for each in results])
    boxes[:, 2:] += boxes[:, :2]
    torch.testing.assert_close(boxes, found.boxes, rtol=0, atol=2e-3)
    scores = torch.tensor([each["score"] for each in results])
    torch.testing.assert_close(scores, found.scores)
    assert [each["category_id"] for each in results] == [ids[label] for label in found.labels]
    assert found.masks is not None
    for each, mask in zip(results, found.masks, strict=True):
        size = (mask.shape[0], mask.shape[1])
        assert np.array_equal(decode_rle(each["segmentation"], size), mask.numpy())


def test_predict__objects_are_what_the_detector_says(
    task: Detection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("out") == 0
    assert capsys.readouterr().out == "out: 4 images\n"
    results = json.loads(Path("out/detections.json").read_text())
    for row, found in enumerate(told_by()):
        own = [each for each in results if each["image_id"] == row + 1]
        assert len(own) == len(found.scores) > 2
        same_objects(own, found, [1, 2])
    rows = rows_in("out/images.csv")
    assert [row["name"] for row in rows] == [f"{number}.png" for number in range(4)]
    assert sum(int(row["objects"]) for row in rows) == len(results)
    table = rows_in("out/classes.csv")
    assert [*table[0]] == ["label", "category_id", "class", "colour", "objects"]
    assert [row["class"] for row in table] == CLASSES
    assert not Path("out.parts").exists()


def test_predict__precision_is_cocos_and_numbers_those_of_the_file(
    task: Detection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("out", "--coco", "truth.json") == 0
    told = capsys.readouterr().out.splitlines()[-1]
    results = json.loads(Path("out/detections.json").read_text())
    assert {each["image_id"] for each in results} == {100, 101, 102, 103}
    same_objects([each for each in results if each["image_id"] == 102], told_by()[2], [3, 7])
    values = {}
    for kind in ("bbox", "segm"):
        true = coco.COCO("truth.json")
        evaluation = coco.COCOeval_faster(true, true.loadRes("out/detections.json"), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        values[kind] = [100 * value for value in evaluation.stats[:3]]
    (ap, ap50, ap75), (mask_ap, *_) = values["bbox"], values["segm"]
    assert 5 < ap < 100 and 0 < mask_ap < 100, "numbers that say nothing would prove nothing"
    assert told == (
        f"box AP {ap:.2f} %, AP50 {ap50:.2f} %, AP75 {ap75:.2f} %, mask AP {mask_ap:.2f} %, of 4 "
        "images with known objects"
    )
    table = rows_in("out/classes.csv")
    assert [row["category_id"] for row in table] == ["3", "7"]
    per_class = [float(row["ap_percent"]) for row in table if row["ap_percent"]]
    assert np.mean(per_class) == pytest.approx(ap, abs=0.01)
    true = json.loads(Path("truth.json").read_text())["annotations"]
    assert sum(int(row["true_objects"]) for row in table) == len(true) > 6


def test_predict__precision_is_that_of_the_trainings_evaluation(
    task: Detection, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(Path("truth.json").read_text())
    content["categories"] = [{"id": 3, "name": "ant"}, {"id": 7, "name": "bee"}]
    Path("truth.json").write_text(json.dumps(content))
    assert predict("out", "--coco", "truth.json") == 0
    told = capsys.readouterr().out.splitlines()[-1]
    reading = BoxReading(annotations="truth.json")
    (dataset,) = open_boxes("photos", "coco", reading).splits.values()
    make = task.make_transform(task.make_evaluation(1.0), PixelFormat(3, "uint8"), seed=0)
    batch = collate_detections([make(dataset[number], 0) for number in range(len(dataset))])
    metrics = task.new_metrics()
    with torch.no_grad():
        task.evaluate(metrics, batch, lambda pixels: normalize(pixels, MEAN, STD))
    for name, title in (("map", "box AP"), ("map_50", "AP50"), ("mask_map", "mask AP")):
        assert f"{title} {100 * float(metrics[name].compute()):.2f} %" in told


def test_predict__goes_on_to_the_same_bytes(
    task: Detection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--coco", "truth.json", "--overlays")
    assert predict("whole", *options) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        assert predict("cut", *options) == 130
    assert "2 of 4 images are done and kept in cut.parts" in capsys.readouterr().err
    assert predict("cut", *options) == 0
    out = capsys.readouterr().out
    assert "going on after 2 of 4 images" in out and out.splitlines()[-1] == told
    assert contents("cut") == contents("whole") and len(contents("cut")) == 4 + 3


def test_predict__reads_shards_and_matches_classes_by_name(
    task: Detection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("folder", "--coco", "truth.json") == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert main(["pack", "photos", "shards", "--coco", "truth.json", "--workers", "0"]) == 0
    capsys.readouterr()
    assert predict("out", images="shards") == 0
    assert capsys.readouterr().out.splitlines()[-1] == told
    assert predict("plain", "--no-labels", images="shards") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "plain: 4 images"


def test_predict__boxes_alone_and_a_truth_without_masks(
    task: Detection, tiny_encoder: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("a", "--coco", "truth.json", "--no-masks") == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert "mask AP" not in told and "box AP" in told
    alone = build(tiny_encoder(img_size_px=128), with_masks=False)
    save_task(Path("boxes/detector"), alone, mean=MEAN, std=STD, card="")
    assert predict("b", "--coco", "truth.json", model="boxes") == 0
    assert "mask AP" not in capsys.readouterr().out
    results = json.loads(Path("b/detections.json").read_text())
    assert results and all("segmentation" not in each for each in results)


def test_predict__nothing_is_found(
    task: Detection, tiny_encoder: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    look = DetectInference(short_px=None, least_score=0.99999)
    blind = build(tiny_encoder(img_size_px=128), inference=look)
    save_task(Path("blind/detector"), blind, mean=MEAN, std=STD, card="")
    options = ("--coco", "truth.json", "--overlays", "--figure", "overview.png")
    assert predict("out", *options, model="blind") == 0
    assert "box AP 0.00 %" in capsys.readouterr().out
    assert json.loads(Path("out/detections.json").read_text()) == []
    assert [row["objects"] for row in rows_in("out/images.csv")] == ["0"] * 4


def test_predict__overlays_show_the_sure_ones(task: Detection) -> None:
    assert predict("out", "--overlays", "--figure", "overview.png") == 0
    for number, found in enumerate(told_by()):
        image = np.array(Image.open(f"photos/{number}.png")).astype(float)
        drawn = np.array(Image.open(f"out/overlays/{number}.jpg")).astype(float)
        assert drawn.shape == image.shape
        differs = np.abs(drawn - image).mean(axis=2) > 60
        assert differs.any() == bool((found.scores >= 0.3).any())
    assert np.array(Image.open("overview.png")).std() > 20


def test_predict__refuses_what_is_for_others(
    task: Detection, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, words in (
        (("--top", "3"), "--top is not for a detector"),
        (("--first-pixel", "1"), "--first-pixel 1 is for --voc"),
        (("--coco", "nowhere.json"), "nowhere.json"),
        (("--coco", "truth.json", "--no-labels"), "exclude each other"),
    ):
        assert predict("out", *options) == 2
        assert words in capsys.readouterr().err
    assert predict("out.json") == 2
    assert "a detector writes a folder of files" in capsys.readouterr().err
    assert not [*Path().glob("out*")]


def test_python__gives_the_objects(task: Detection) -> None:
    found = ssl_swin.predict("run", "photos")
    assert found.names == [f"{number}.png" for number in range(4)]
    assert found.classes == tuple(CLASSES)
    for ours, expected in zip(found.objects, told_by(), strict=True):
        assert all(a.equal(b) for a, b in zip(ours, expected, strict=True))

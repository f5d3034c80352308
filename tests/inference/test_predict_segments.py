"""`ssl-swin predict` of segmenters: masks, tables and mIoU equal what the segmenter says."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from worlds import MEAN, STD, contents, interrupt_after, predict, rows_in

import ssl_swin
from ssl_swin.cli import main
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.mask_classes import MaskClasses
from ssl_swin.data.segment_samples import collate_segments
from ssl_swin.data.sources.opening import open_datasets
from ssl_swin.inference.file_names import FileNames
from ssl_swin.inference.predictors import whole_images
from ssl_swin.inference.predictors.segmentation import SegmentPredictor, mask_image
from ssl_swin.pixels import normalize
from ssl_swin.reporting.drawing import class_colours
from ssl_swin.reporting.overlay import class_overlay
from ssl_swin.tasks.segmentation import Segmentation
from ssl_swin.tasks.segmenting import Inference
from ssl_swin.weights.backbone import save_backbone, save_task
from ssl_swin.weights.segmenter import load_segmenter

CLASSES = ["sky", "road", "tree"]
SIZES = ((40, 56), (35, 33), (64, 47), (30, 30), (50, 41))
VALUES = {0: 0, 100: 1, 200: 2}  # of the masks


@pytest.fixture
def task(
    tmp_path: Path, tiny_encoder: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Segmentation:
    """A run with a segmenter of three classes, and five images with masks of unlike sizes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SegmentPredictor, "part_images", 2)
    rng = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        blocks = np.kron(rng.integers(0, 3, (8, 8)), np.ones((8, 8), int))[: size[0], : size[1]]
        save(f"photos/images/{number}.png", rng.integers(0, 255, (*size, 3)))
        mask = np.array([*VALUES])[blocks]
        mask[:3] = 255
        save(f"photos/masks/{number}.png", mask)
    made = build(tiny_encoder(img_size_px=128, depths=(1, 1, 1, 1)))
    save_task(Path("run/segmenter"), made, mean=MEAN, std=STD, card="")
    save_backbone(Path("run/backbone"), made.encoder, mean=MEAN, std=STD, card="")
    return made


def build(encoder: Any, classes: list[str] = CLASSES) -> Segmentation:
    torch.manual_seed(0)
    made = Segmentation(
        encoder,
        classes,
        crop_px=32,
        head_channels=8,
        auxiliary_channels=8,
        auxiliary_weight=0.4,
        dropout=0.1,
        loss_mean="all",
        masks=MaskClasses(class_of=VALUES),
        inference=Inference(short_px=36, long_px=60),
    ).eval()
    with torch.no_grad():
        made.decode_head.conv_seg.weight.normal_(std=3)
    return made


def save(path: str, values: np.ndarray) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def told_by(model: str = "run") -> list[Tensor]:
    segmenter = load_segmenter(model)
    read = (np.array(Image.open(f"photos/images/{number}.png")) for number in range(len(SIZES)))
    return [segmenter.segment(torch.from_numpy(each).permute(2, 0, 1)) for each in read]


@pytest.mark.parametrize("model", ["run", "run/segmenter"])
def test_predict__masks_and_tables_are_what_the_segmenter_says(
    task: Segmentation, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("out", model=model) == 0
    expected = told_by()
    assert len(torch.cat([each.unique() for each in expected]).unique()) == 3
    rows = rows_in("out/images.csv")
    for number, (classes, row) in enumerate(zip(expected, rows, strict=True)):
        assert (row["name"], row["mask"]) == (f"{number}.png", f"masks/{number}.png")
        with Image.open(f"out/{row['mask']}") as image:
            assert image.mode == "P"
            assert image.getpalette()[:9] == [v for c in class_colours(3) for v in c]
            assert np.array_equal(np.array(image), classes)
        assert [int(row[name]) for name in CLASSES] == classes.flatten().bincount(
            minlength=3
        ).tolist()
    assert not Path("out.parts").exists()
    assert {path.name for path in Path("out").iterdir()} == {"masks", "images.csv", "classes.csv"}
    assert "out: 5 images\nmIoU " in capsys.readouterr().out


def test_predict__miou_is_that_of_the_trainings_evaluation(
    task: Segmentation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("out") == 0
    told = capsys.readouterr().out.splitlines()[-1]
    (dataset,) = open_datasets("photos", labelled=False).values()
    make = task.make_transform(task.make_evaluation(1.0), PixelFormat(3, "uint8"), seed=0)
    batch = collate_segments([make(dataset[number], 0) for number in range(len(dataset))])
    metrics = task.new_metrics()
    with torch.no_grad():
        task.evaluate(metrics, batch, lambda pixels: normalize(pixels, MEAN, STD))
    miou, right = (100 * float(metrics[name].compute()) for name in ("miou", "pixel_accuracy"))
    assert told == f"mIoU {miou:.2f} %, {right:.2f} % of pixels right, of 5 images with a mask"
    table = rows_in("out/classes.csv")
    assert [row["class"] for row in table] == CLASSES
    ious = 100 * metrics["miou"].of_classes()
    assert [row["iou_percent"] for row in table] == [f"{iou:.2f}" for iou in ious.tolist()]
    assert [int(row["true_pixels"]) for row in table] == metrics["miou"].true.tolist()
    total = sum(torch.bincount(each.flatten(), minlength=3) for each in told_by())
    assert [int(row["pixels"]) for row in table] == total.tolist()
    assert table[1]["colour"] == "#{:02x}{:02x}{:02x}".format(*class_colours(3)[1])


def test_predict__goes_on_to_the_same_bytes_and_lists_bad_images(
    task: Segmentation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photos/images/1.png").write_bytes(b"no image")
    assert predict("whole", "--overlays") == 0
    assert "1 image could not be read, listed in whole/bad.csv" in capsys.readouterr().out
    assert [row["name"] for row in rows_in("whole/bad.csv")] == ["1.png"]
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        assert predict("cut", "--overlays") == 130
    assert not Path("cut").exists()
    assert "2 of 5 images are done and kept in cut.parts" in capsys.readouterr().err
    before = Path("cut.parts/cut/masks/0.png").stat().st_mtime_ns
    assert predict("cut", "--overlays") == 0
    assert "going on after 2 of 5 images" in capsys.readouterr().out
    assert Path("cut/masks/0.png").stat().st_mtime_ns == before
    assert contents("cut") == contents("whole") and len(contents("cut")) == 2 * 4 + 3


def test_predict__starts_over_where_what_was_written_went(
    task: Segmentation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(whole_images.Parts, "remove", lambda self: None)
    assert predict("out") == 0
    expected = contents("out")
    shutil.rmtree("out")
    capsys.readouterr()
    assert predict("out") == 0
    assert "starting over: what was written changed since" in capsys.readouterr().out
    assert contents("out") == expected
    shutil.rmtree("out")
    Path("out.parts/out/masks").mkdir(parents=True)
    Path("out.parts/out/masks/old.png").touch()
    assert predict("out", "--overlays") == 0
    assert "starting over: overlays changed since" in capsys.readouterr().out
    assert not Path("out/masks/old.png").exists()


def test_predict__without_masks_or_with_such_as_cannot_be_used(
    task: Segmentation, capsys: pytest.CaptureFixture[str]
) -> None:
    save("photos/masks/2.png", np.full(SIZES[2], 7))
    assert predict("some") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2].endswith("of 4 images with a mask")
    assert told[-1].startswith("note: the masks of 1 image are not used; one, since the mask of")
    assert "has the value 7" in told[-1]
    assert len(rows_in("some/images.csv")) == 5
    assert predict("none", "--no-labels") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "none: 5 images"
    assert [*rows_in("none/classes.csv")[0]] == ["label", "class", "colour", "pixels"]
    shutil.rmtree("photos/masks")
    assert predict("plain") == 0
    masks = {name: data for name, data in contents("none").items() if name.startswith("masks/")}
    for name, data in masks.items():
        assert Path("plain", name.replace("masks/", "masks/images/")).read_bytes() == data


def test_predict__reads_shards_with_their_masks(
    task: Segmentation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("folder") == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert main(["pack", "photos", "shards", "--no-labels", "--workers", "0"]) == 0
    capsys.readouterr()
    assert predict("out", images="shards") == 0
    assert capsys.readouterr().out.splitlines()[-1] == told
    rows = rows_in("out/images.csv")
    assert rows[0]["mask"] == "masks/train/train-000000/0.png"
    for row in rows:
        assert Path("out", row["mask"]).is_file()
    ours = sorted(tuple(row[name] for name in CLASSES) for row in rows)
    theirs = sorted(tuple(row[name] for name in CLASSES) for row in rows_in("folder/images.csv"))
    assert ours == theirs


def test_predict__overlays_and_overview(task: Segmentation) -> None:
    assert predict("out", "--overlays", "--figure", "overview.png") == 0
    for number, classes in enumerate(told_by()):
        image = np.array(Image.open(f"photos/images/{number}.png"))
        expected = class_overlay(image, classes.numpy(), 3).astype(float)
        drawn = np.array(Image.open(f"out/overlays/{number}.jpg")).astype(float)
        assert drawn.shape == expected.shape
        assert np.abs(drawn - expected).mean() < 25 < np.abs(drawn[::-1] - expected).mean() + 12
    assert np.array(Image.open("overview.png")).std() > 20


def test_predict__refuses_what_is_for_classifiers(
    task: Segmentation, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (("--top", "3"), ("--crop-ratio", "1"), ("--batch-size", "4")):
        assert predict("out", *options) == 2
        assert f"{options[0]} is not for a segmenter: leave it out" in capsys.readouterr().err
    assert predict("out.csv") == 2
    assert "a segmenter writes a folder of files: give a name" in capsys.readouterr().err
    assert not [*Path().glob("out*")]


def test_python__gives_the_classes_of_pixels(task: Segmentation) -> None:
    found = ssl_swin.predict("run", "photos")
    assert found.names == [f"{number}.png" for number in range(5)]
    assert found.classes == tuple(CLASSES)
    for ours, expected in zip(found.masks, told_by(), strict=True):
        assert torch.equal(ours, expected)
    with pytest.raises(ssl_swin.UserError, match=r"^crop_ratio is not for a segmenter"):
        ssl_swin.predict("run", "photos", crop_ratio=1)


def test_serve__refuses_a_segmenter(task: Segmentation, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn")
    for model in ("run", "run/segmenter"):
        assert main(["serve", model, "--port", "0"]) == 2
        assert "serve gives classes of images" in capsys.readouterr().err


def test_mask_image__has_16_bits_beyond_255_classes(tmp_path: Path) -> None:
    classes = np.array([[0, 1], [254, 255]])
    mask_image(classes, 256).save(tmp_path / "wide.png")
    with Image.open(tmp_path / "wide.png") as image:
        assert image.mode.startswith("I;16") and np.array_equal(np.array(image), classes)
    mask_image(classes.clip(max=254), 255).save(tmp_path / "narrow.png")
    with Image.open(tmp_path / "narrow.png") as image:
        assert image.mode == "P" and np.array_equal(np.array(image), classes.clip(max=254))


def test_class_overlay__is_halfway_to_the_colour() -> None:
    picture = np.zeros((1, 2, 3), np.uint8)
    drawn = class_overlay(picture, np.array([[0, 2]]), 3)
    assert drawn.tolist() == [[[round(v / 2) for v in class_colours(3)[c]] for c in (0, 2)]]


def test_file_names__are_safe_and_of_one_image_each() -> None:
    names = [
        "a/b.jpg",
        "../a/b.png",
        "a/b.png",
        "/etc/x",
        "train-000000.tar:12",
        "v1.2/c",
        "..",
        ".",
    ]
    files = FileNames()
    assert [files.add(name) for name in names] == [
        *("a/b", "a/b.png", "a/b.png_1", "etc/x", "train-000000/12", "v1.2/c", "image", "image_1")
    ]
    assert FileNames(names[:3]).add("a/b.jpg") == "a/b.jpg"

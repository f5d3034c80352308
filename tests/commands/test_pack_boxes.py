"""`ssl-swin pack` of images with boxes: what it writes, how it reads back, what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_swin.cli import main
from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.sample import Sample
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.shards.index import open_index
from ssl_swin.data.sources.boxes.opening import open_boxes

ALONE = ("--workers", "0", "--shard-samples", "9")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images of 6 x 9 px in photos/, with boxes and masks in photos/boxes.json."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    annotations: list[dict[str, Any]] = []
    for number in range(5):
        pixels = np.full((6, 9), 40 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{'ab'[number == 4]}_{number}.png")
        for left in range(number):
            rle = {"size": [6, 9], "counts": [6 * left, 12, 42 - 6 * left]}
            box = {"bbox": [left, 0, 2, 6], "area": 12, "segmentation": rle}
            annotations.append(box | {"image_id": number, "category_id": 5 if left else 2})
    images = [
        {"id": n, "file_name": f"{'ab'[n == 4]}_{n}.png", "height": 6, "width": 9} for n in range(5)
    ]
    categories = [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    Path("photos/boxes.json").write_text(json.dumps(content))
    return tmp_path


def pack(*options: str) -> int:
    return main(["pack", "photos", "shards", *ALONE, *options])


def samples(dataset: Any) -> dict[int, Sample]:
    """By the gray level of the image, which is its own."""
    pixels = PixelFormat(1, "uint8")
    decoded = [
        decode_sample(dataset[n], pixels, members=("image", "boxes")) for n in range(len(dataset))
    ]
    return {int(sample.pixels[0, 0, 0]): sample for sample in decoded}


def test_pack__reads_back_equal(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack("--coco", "photos/boxes.json", "--val-ratio", "0") == 0
    assert "classes: 2, the categories of" in capsys.readouterr().out
    source = open_boxes("photos", "coco").splits["train"]
    index = open_index(Path("shards"))
    packed = ShardDataset(index, "train")
    assert index.classes == packed.classes == source.classes == ("cat", "dog")
    assert packed.members == ("image", "boxes")
    before, after = samples(source), samples(packed)
    assert before.keys() == after.keys() == {0, 40, 80, 120, 160}
    for level, sample in before.items():
        for field in ("pixels", "boxes", "box_labels", "box_areas", "box_masks"):
            one, other = getattr(sample, field), getattr(after[level], field)
            assert (one is None and other is None) or torch.equal(one, other)
    assert after[160].box_masks is not None and after[160].box_masks.sum() == 48
    order = OrderConstants(block=1, pool=9, lanes=1)
    opened = open_splits(
        "shards", "indexed", how_to_make="", order=order, members=("image", "boxes")
    )
    assert opened["train"].classes == ("cat", "dog")
    assert main(["check", "shards", "--workers", "0"]) == 0


@pytest.mark.parametrize(
    ("options", "splits"),
    [
        (["--coco", "photos", "--val-names", "b_*"], {"train": 4, "val": 1}),
        (["--coco", "photos", "--val-ratio", "0.4"], {"train": 3, "val": 2}),
        (
            ["--coco", "train=photos/boxes.json", "--leave-out", "b_*", "--val-ratio", "0"],
            {"train": 4},
        ),
    ],
)
def test_pack__splits(place: Path, options: list[str], splits: dict[str, int]) -> None:
    assert pack(*options) == 0
    index = open_index(Path("shards"))
    assert {split: index.num_samples(split) for split in index.splits} == splits


def test_pack__classes_and_boxes_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--classes", "dog", "--no-masks", "--val-ratio", "0")
    assert pack("--coco", "photos", *options) == 0
    out = capsys.readouterr().out
    assert "left out: 4 boxes of classes that --classes does not name (cat), by" in out
    assert "classes: 1, --classes" in out
    packed = samples(ShardDataset(open_index(Path("shards")), "train"))
    assert packed[160].box_masks is None and packed[160].box_labels is not None
    assert packed[160].box_labels.tolist() == [0, 0, 0]


def test_pack__lists_what_is_left_out(place: Path) -> None:
    Image.new("L", (9, 6)).save("photos/more.png")
    content = json.loads(Path("photos/boxes.json").read_text())
    content["annotations"][0]["bbox"] = [99, 0, 1, 1]
    Path("photos/boxes.json").write_text(json.dumps(content))
    Path("photos/a_2.png").write_bytes(b"no image")
    assert pack("--coco", "photos", "--val-ratio", "0") == 0
    listed = Path("shards/skipped.txt").read_text()
    assert "a_1.png [99, 0, 1, 1]: a box that is empty or outside its image\n" in listed
    assert "photos/more.png: no annotations list it\n" in listed
    assert "photos/a_2.png: the boxes of" in listed
    assert open_index(Path("shards")).num_samples("train") == 4


def test_pack__voc_and_yolo(place: Path) -> None:
    xml = (
        "<annotation><size><width>9</width><height>6</height></size><object><name>dog</name>"
        "<bndbox><xmin>2</xmin><ymin>1</ymin><xmax>5</xmax><ymax>4</ymax></bndbox></object>"
        "</annotation>"
    )
    Path("xml").mkdir(), Path("txt").mkdir()
    for path in Path("photos").glob("*.png"):
        Path(f"xml/{path.stem}.xml").write_text(xml)
        Path(f"txt/{path.stem}.txt").write_text("0 0.5 0.5 0.5 0.5")
    options = (*ALONE, "--val-ratio", "0")
    assert main(["pack", "photos", "v", "--voc", "xml", "--first-pixel", "0", *options]) == 0
    packed = samples(ShardDataset(open_index(Path("v")), "train"))
    assert packed[0].boxes is not None and packed[0].boxes.tolist() == [[2, 1, 5, 4]]
    assert main(["pack", "photos", "y", "--yolo", "txt", "--classes", "dog", *options]) == 0
    index = open_index(Path("y"))
    packed = samples(ShardDataset(index, "train"))
    assert packed[0].boxes is not None and packed[0].boxes.tolist() == [[2.25, 1.5, 6.75, 4.5]]
    assert index.classes == ("dog",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--coco", "photos", "--voc", "photos"], "--coco and --voc exclude each other"),
        (["--coco", "photos", "--no-labels"], "--coco and --no-labels exclude each other"),
        (["--coco", "photos", "--masks", "photos"], "--coco and --masks exclude each other"),
        (["--first-pixel", "1"], "--first-pixel 1 is for --voc"),
        (["--val-names", "x"], "--val-names is for --coco, --voc and --yolo"),
        (["--coco", "photos", "--val-names", "x"], "--val-names 'x', which fits no image"),
        (["--coco", "gone.json"], "--coco gone.json: there is no such file or folder"),
        (["--coco", "a=b"], "--coco a=b: there is no such file"),
        (["--coco", "photos", "--coco", "."], "--coco names two paths for all splits: ."),
        (["--coco", ".", "--coco", "val=photos"], "--coco names paths for splits, and one for all"),
        (["--coco", "photos", "--classes", "ox"], "--classes has 'ox', none of the categories"),
        (["--voc", "photos"], "no XML file in"),
        (["--yolo", "photos"], "no image to train on in"),
    ],
)
def test_pack__refuses(
    place: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert pack(*options) == 2
    error = capsys.readouterr().err
    assert message in error and "data." not in error
    assert not Path("shards").exists()


def test_pack__proposes_detection(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pack("--coco", "photos", "--val-ratio", "0.4") == 0
    assert (
        "next: ssl-swin detect backbone=none model=swin_t data=shards data.root=shards "
        "batch_size=2  # backbone=RUN takes a pretrained one\n"
    ) in capsys.readouterr().out

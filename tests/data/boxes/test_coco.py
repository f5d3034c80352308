"""COCO: where its JSON and its images may lie, what it says, and what is refused."""

import pytest
import torch

from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sources.boxes.opening import open_boxes
from ssl_swin.data.sources.boxes.reading import BoxReading
from ssl_swin.errors import UserError

BOX = (3, [2, 3, 4, 5])


def opened(path, **reading):
    return open_boxes(path, "coco", BoxReading(**reading))


def samples(opened, split="train"):
    dataset = opened.splits[split]
    return [
        decode_sample(dataset[index], PixelFormat(1, "uint8"), members=("image", "boxes"))
        for index in range(len(dataset))
    ]


def names(opened):
    return {split: [each.name for each in samples(opened, split)] for split in opened.splits}


def test_boxes__of_categories_with_gaps(tmp_path, image, text, coco):
    image("a.png"), image("b.png"), image("c.png")
    crowd = {"category_id": 7, "bbox": [1.5, 0, 2, 2.25], "iscrowd": 1, "area": 3.5}
    content = coco({"a.png": [BOX, crowd], "b.png": [], "c.png": [(7, [0, 0, 30, 20])]})
    text("train.json", content)
    found = opened(tmp_path)
    assert found.splits["train"].classes == ("dog", "cat")  # by their ids, 3 and 7
    first, empty, last = samples(found)
    assert first.boxes.tolist() == [[2, 3, 6, 8], [1.5, 0, 3.5, 2.25]]
    assert first.box_labels.tolist() == [0, 1] and first.box_crowd.tolist() == [False, True]
    assert first.box_areas is None and first.box_masks is None  # an area is not known of all
    assert empty.boxes.shape == (0, 4) and last.boxes.tolist() == [[0, 0, 30, 20]]
    assert found.splits["train"].labels().tolist() == [-1, -1, -1] and found.notes == []


@pytest.mark.parametrize(
    ("jsons", "folder"),
    [
        (("annotations/instances_train2017.json", "annotations/instances_val2017.json"), "{}2017"),
        (("instances_train.json", "instances_validation.json"), "images/{}"),
        (("train/_annotations.coco.json", "valid/_annotations.coco.json"), "{}"),
        (("annotations/train.json", "annotations/val.json"), "images"),
        (("train.json", "val.json"), "."),
    ],
)
def test_layouts__of_two_splits(tmp_path, image, text, coco, jsons, folder):
    for split, file in zip(("train", "val"), jsons, strict=True):
        named = "valid" if "valid" in jsons[1] and "_ann" in jsons[1] else split
        for number in (0, 1):
            image(f"{folder.format(named)}/{split}_{number}.png")
        text(file, coco({f"{split}_{number}.png": [BOX] for number in (0, 1)}))
    found = opened(tmp_path)
    assert names(found) == {s: [f"{s}_0.png", f"{s}_1.png"] for s in ("train", "val")}
    assert found.notes == ["no box of train is of class cat"]


def test_layouts__lvis_gives_addresses_in_place_of_names(tmp_path, image, text, coco):
    image("train2017/0.png")
    content = coco({"http://images.org/train2017/0.png": [BOX]})
    content["images"][0]["coco_url"] = content["images"][0].pop("file_name")
    text("lvis_v1_train.json", content)
    assert opened(tmp_path).splits["train"].file_name(0) == str(tmp_path / "train2017/0.png")


@pytest.mark.parametrize(
    "file_name", ["sub/a.png", "sub\\a.png", "./sub/a.png", "/home/else/where/a.png", "a.png"]
)
def test_layouts__names_of_files_with_other_folders(tmp_path, image, text, coco, file_name):
    image("images/sub/a.png"), image("masks/sub/a.png")
    text("train.json", coco({file_name: [BOX]}))
    assert opened(tmp_path).splits["train"].file_name(0) == str(tmp_path / "images/sub/a.png")


def test_layouts__same_names_in_every_split_and_other_files_of_coco(tmp_path, image, text, coco):
    for split in ("train", "val", "test"):
        for number in range(4):
            image(f"{split}2017/{number}.png", (20, 30) if split != "test" else (9, 9))
    text("annotations/instances_train2017.json", coco({f"{n}.png": [BOX] for n in range(4)}))
    text("annotations/instances_val2017.json", coco({"1.png": [BOX], "7.png": [BOX]}))
    text("annotations/captions_train2017.json", {"images": [], "annotations": []})
    found = opened(tmp_path)
    assert found.splits["train"].file_name(3) == str(tmp_path / "train2017/3.png")
    assert found.splits["val"].file_name(0) == str(tmp_path / "val2017/1.png")
    lines = [line.partition(",")[0].partition("by /")[0] for line in found.notes]
    assert lines[0] == "left out: 1 image without a file on disk (7.png)"
    assert "left out: 3 images that no annotations list (0.png" in lines


def test_annotations__are_given(tmp_path, image, text, coco):
    image("photos/a.png"), image("photos/b.png")
    text("x/one.json", coco({"a.png": [BOX]})), text("x/two.json", coco({"b.png": [BOX]}))
    with pytest.raises(UserError, match=r"one\.json and .*two\.json may both .* data.annotations"):
        opened(tmp_path)
    found = opened(tmp_path, annotations={"train": "x/two.json", "val": "x/one.json"})
    assert names(found) == {"train": ["b.png"], "val": ["a.png"]}
    for way in ("x/one.json", str(tmp_path / "x" / "one.json")):
        assert names(opened(tmp_path, annotations=way)) == {"train": ["a.png"]}
    assert names(opened(text("photos/three.json", coco({"a.png": [BOX]})))) == {"train": ["a.png"]}
    with pytest.raises(UserError, match=r"data.annotations=y.json: there is no such file in"):
        opened(tmp_path, annotations="y.json")
    with pytest.raises(UserError, match=r"a path for train and val and test.* got 'valid'"):
        opened(tmp_path, annotations={"valid": "x/one.json"})
    with pytest.raises(UserError, match=r"no split to train on, only: val"):
        opened(tmp_path, annotations={"val": "x/one.json"})


def test_masks__polygons_and_run_lengths(tmp_path, image, text, coco):
    pytest.importorskip("faster_coco_eval")
    image("a.png")
    polygon = [4, 2, 10, 2, 10, 8, 4, 8]
    rle = {"size": [20, 30], "counts": [20, 20, 560]}
    entries = [
        {"category_id": 3, "bbox": [4, 2, 6, 6], "segmentation": [polygon, [1, 2, 3, 4]]},
        {"category_id": 3, "bbox": [1, 0, 1, 20], "segmentation": rle, "iscrowd": 1},
        {"category_id": 7, "bbox": [4, 2, 6, 6], "segmentation": polygon},
        {"category_id": 7, "bbox": [5, 5, 5, 5], "segmentation": []},
    ]
    text("train.json", coco({"a.png": entries}))
    found = opened(tmp_path)
    (sample,) = samples(found)
    square = torch.zeros(20, 30, dtype=torch.uint8)
    square[2:8, 4:10] = 1
    assert sample.box_masks[0].equal(square) and sample.box_masks[2].equal(square)
    assert sample.box_masks[1].nonzero()[:, 1].unique().tolist() == [1]
    assert sample.box_masks[1].sum() == 20 and sample.box_labels.tolist() == [0, 0, 1]
    assert found.notes[0].startswith(
        "left out: 1 box without a mask, where others have one (a.png [5, 5, 10, 10]), by "
    )
    (alone,) = samples(opened(tmp_path, masks=False))
    assert alone.box_masks is None and len(alone.boxes) == 4


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([0, 0, 1e30, 0, 5, 5], r"a polygon has a corner far from its image: \[0, 0, 1e\+30"),
        ([0, 0, float("nan"), 0, 5, 5], "a polygon has a corner far from its image"),
        ([0, 0, "x", 0, 5, 5], "a polygon has a corner that is no number"),
        ([0, 0, [1], 0, 5, 5], "a polygon has a corner that is no number"),
        ([10**400, 2, 10, 2, 10, 8], "a polygon has a corner that is no number"),
    ],
)
def test_masks__refuse_polygons_that_cannot_be_drawn(tmp_path, image, text, coco, polygon, message):
    """Drawing a long edge takes memory, also outside the image."""
    pytest.importorskip("faster_coco_eval")
    path = image("a.png")
    entry = {"category_id": 3, "bbox": [4, 2, 6, 6], "segmentation": [3, "x", polygon]}
    text("train.json", coco({"a.png": [entry]}))
    dataset = opened(tmp_path).splits["train"]
    with pytest.raises(UserError, match=f"the boxes of {path} by .*: {message}"):
        dataset[0]


def test_masks__need_a_package_where_they_are_polygons(tmp_path, image, text, coco, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval.core", None)
    image("a.png")
    entry = {"category_id": 3, "bbox": [4, 2, 6, 6], "segmentation": [[4, 2, 10, 2, 10, 8]]}
    text("train.json", coco({"a.png": [entry]}))
    with pytest.raises(UserError, match=r"pip install 'ssl_swin\[detection\]'; or set data.masks"):
        opened(tmp_path)
    assert len(samples(opened(tmp_path, masks=False))[0].boxes) == 1


def test_boxes__outside_or_empty_are_left_out_and_others_are_cut_off(tmp_path, image, text, coco):
    image("a.png")
    boxes = [[-5, -5, 10, 10], [0, 0, 0, 4], [30, 2, 5, 5], [28.5, 18, 9, 9], [3, 3, -1, 2]]
    text("train.json", coco({"a.png": [(3, box) for box in boxes]}))
    found = opened(tmp_path)
    (sample,) = samples(found)
    assert sample.boxes.tolist() == [[0, 0, 5, 5], [28.5, 18, 30, 20]]
    assert found.notes[0] == (
        "left out: 3 boxes of no area inside the image (a.png [0, 0, 0, 4], a.png "
        f"[30, 2, 5, 5], a.png [3, 3, -1, 2]), by {tmp_path}/train.json"
    )
    assert [file.name for file in found.left_out] == [f"a.png {boxes[n]}" for n in (1, 2, 4)]


def test_classes__are_chosen_and_ordered(tmp_path, image, text, coco):
    image("a.png")
    text("train.json", coco({"a.png": [BOX, (7, [0, 0, 2, 2])]}, {3: "dog", 7: "cat", 9: "ox"}))
    found = opened(tmp_path, classes=["ox", "cat"])
    assert found.splits["train"].classes == ("ox", "cat")
    assert samples(found)[0].box_labels.tolist() == [1]
    assert found.notes[0].startswith(
        "left out: 1 box of classes that data.classes does not name (dog), by"
    )
    with pytest.raises(UserError, match=r"data.classes has 'cats', none of the categories of .*ox"):
        opened(tmp_path, classes=["cats"])


def test_classes__of_two_files_go_by_their_names(tmp_path, image, text, coco):
    image("a.png"), image("b.png")
    text("train.json", coco({"a.png": [BOX]}))
    text("val.json", coco({"b.png": [(1, [0, 0, 2, 2])]}, {1: "cat", 2: "ox"}))
    assert samples(opened(tmp_path), "val")[0].box_labels.tolist() == [1]
    text("val.json", coco({"b.png": [(2, [0, 0, 2, 2])]}, {1: "cat", 2: "ox"}))
    with pytest.raises(UserError, match=r"val.json has boxes of 'ox', which the file of another"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ((4, [1, 1, 2, 2]), "annotation 100 has the category_id 4, none of its categories: 3, 7"),
        ((3, [1, 1, 2]), r"annotation 100 has the bbox \[1, 1, 2\]; it must be x, y, width"),
        ((3, [1, 1, 2, float("nan")]), r"annotation 100 has the bbox \[1, 1, 2, nan\].* finite"),
        ((3, [1, 1, 2, 10**400]), "annotation 100 has the bbox .*; it must be x, y, width"),
        (
            {"category_id": 3, "bbox": [1, 1, 2, 2], "area": 10**400},
            "annotation 100 has the area .*, which is no number",
        ),
        ((3, [1, 1, "2", 2]), r"annotation 100 has the bbox \[1, 1, '2', 2\]; it must be"),
        ({"category_id": 3}, "annotation 100 has the bbox None; it must be"),
        (
            {"category_id": 3, "bbox": [1, 1, 2, 2], "area": "x"},
            "annotation 100 has the area 'x', which is no",
        ),
    ],
)
def test_refuses__an_annotation(tmp_path, image, text, coco, annotation, message):
    image("a.png")
    text("train.json", coco({"a.png": [annotation]}))
    with pytest.raises(UserError, match=f"train.json: {message}"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {}}, "train.json is no file of COCO: it has no list 'images', but images,"),
        ({"images": []}, "train.json lists no image"),
        ({"categories": []}, "train.json has no categories, so that its boxes have no class"),
        ({"categories": [{"id": 1}]}, "a category has no id or no name"),
        ({"categories": [{"id": 3, "name": "a"}] * 2}, "two categories have the id 3 or the name"),
        ({"images": [{"id": 1, "file_name": "a.png"}]}, "a.png has the height None and the width"),
        ({"images": [{"id": 1}]}, "an image has no id or no file_name"),
    ],
)
def test_refuses__a_file(tmp_path, image, text, coco, changes, message):
    image("a.png")
    text("train.json", coco({"a.png": [BOX]}, **changes))
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_refuses__images_listed_twice(tmp_path, image, text, coco):
    image("a.png")
    entry = {"id": 0, "file_name": "a.png", "height": 20, "width": 30}
    text("train.json", coco({"a.png": []}, images=[entry, entry | {"id": 1}]))
    with pytest.raises(UserError, match=r"lists the image a.png twice"):
        opened(tmp_path)
    text("train.json", coco({"a.png": []}, images=[entry, entry | {"file_name": "b.png"}]))
    with pytest.raises(UserError, match=r"two images have the id 0, the second is b.png"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1]", "train.json is no file of COCO: it holds no object"), ("{", "train.json is no JSON")],
)
def test_refuses__what_is_no_coco(tmp_path, image, text, content, message):
    image("a.png"), text("train.json", content)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_refuses__a_file_of_other_images_and_none(tmp_path, image, text, coco):
    image("a.png")
    with pytest.raises(UserError, match=r"no JSON file in .* or the folders directly in it"):
        opened(tmp_path)
    text("train.json", coco({"b.png": [BOX], "c.png": []}))
    with pytest.raises(UserError, match=r"none of the 2 images of .*train.json is below .* b.png:"):
        opened(tmp_path)


def test_refuses__another_size(tmp_path, image, text, coco):
    image("a.png", (20, 31))
    text("train.json", coco({"a.png": [BOX]}))
    with pytest.raises(UserError, match=r"a.png is 20 x 31 px \(height x width\), and 20 x 30 by"):
        opened(tmp_path)


def test_notes__boxes_of_images_that_are_not_listed_and_images_in_two_splits(
    tmp_path, image, text, coco
):
    image("a.png")
    text("train.json", coco({"a.png": [BOX]}))
    stray = {"category_id": 3, "bbox": [0, 0, 1, 1], "image_id": 55}
    text("val.json", coco({"a.png": [BOX, stray]}))
    notes = opened(tmp_path).notes
    assert notes[0].startswith("left out: 1 box of no image that is listed (image_id 55), by")
    assert notes[1] == "1 image of train are in val, too: a.png"

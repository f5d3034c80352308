"""YOLO: where label files and images may lie, what a line says, and what is refused."""

import pytest
import torch

from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sources.boxes.opening import open_boxes
from ssl_swin.data.sources.boxes.reading import BoxReading
from ssl_swin.errors import UserError

BOX = "1 0.5 0.5 0.2 0.4\n"  # of 30 x 20 px: from (12, 6) to (18, 14)
PIXELS = PixelFormat(1, "uint8")


def opened(path, **reading):
    return open_boxes(path, "yolo", BoxReading(**reading))


def samples(opened, split="train"):
    dataset = opened.splits[split]
    members = ("image", "boxes")
    return [decode_sample(dataset[n], PIXELS, members=members) for n in range(len(dataset))]


def close(boxes, expected):
    return boxes.shape == (len(expected), 4) and boxes.allclose(torch.tensor(expected).float())


def names(opened):
    return {split: [each.name for each in samples(opened, split)] for split in opened.splits}


def test_boxes__are_shares_of_each_image(tmp_path, image, text):
    image("images/a.png"), image("images/b.png", (40, 100)), image("images/c.png")
    for name in "ab":
        text(f"labels/{name}.txt", f"\n{BOX}0 0.05 0.05 0.2 0.2\n0 0.5 0.5 0 0.1\n")
    text("labels/c.txt", "")
    found = opened(tmp_path)
    first, second, empty = samples(found)
    assert close(first.boxes, [[12, 6, 18, 14], [0, 0, 4.5, 3]])
    assert close(second.boxes, [[40, 12, 60, 28], [0, 0, 15, 6]])
    assert first.box_labels.tolist() == [1, 0] and empty.boxes.shape == (0, 4)
    assert found.splits["train"].classes == ("0", "1")
    assert found.notes == [
        "1 image of train without a label, taken for empty ones",
        "left out: 2 boxes of no area inside the image (a.png 0 0.5 0.5 0 0.1, b.png 0 0.5 0.5 0 "
        "0.1), by the label files of train",
    ]


def test_polygons__are_masks_and_give_boxes(tmp_path, image, text):
    pytest.importorskip("faster_coco_eval")
    image("a.png")
    text("a.txt", "0 0.2 0.1 0.4 0.1 0.4 0.5 0.2 0.5\n1 0.5 0.5 0.1 0.1")
    found = opened(tmp_path)
    (sample,) = samples(found)
    assert close(sample.boxes, [[6, 2, 12, 10]])
    assert sample.box_masks.shape == (1, 20, 30) and sample.box_masks.sum() == 48
    assert "left out: 1 box without a mask" in found.notes[0]
    assert len(samples(opened(tmp_path, masks=False))[0].boxes) == 2


DATA = "{base}train: {train}\nval: {val}\nnc: 2\nnames: {names}\n"


@pytest.mark.parametrize(
    ("base", "images", "entries"),
    [
        ("", "images/{}", "images/{}"),
        ("path: .\n", "images/{}", "images/{}"),
        ("path: ../datasets/gone\n", "images/{}", "images/{}"),
        ("", "{}/images", "../{}/images"),  # as Roboflow writes it
        ("", "{}/images", "[{}/images]"),
        ("", "{}", "./{}"),
    ],
)
def test_layouts__data_yaml(tmp_path, image, text, base, images, entries):
    for split in ("train", "valid"):
        image(f"{images.format(split)}/{split}.png"), image(f"{images.format(split)}/b/0.png")
        labels = images.format(split).replace("images", "labels")
        text(f"{labels}/{split}.txt", BOX), text(f"{labels}/b/0.txt", BOX)
    train, val = (entries.format(split) for split in ("train", "valid"))
    listed = DATA.format(base=base, train=train, val=val, names="[cat, dog]")
    file = text("data.yaml", listed)
    for place in (tmp_path, file):
        found = opened(place)
        assert names(found) == {"train": ["b/0.png", "train.png"], "val": ["b/0.png", "valid.png"]}
        assert found.splits["train"].classes == ("cat", "dog")
        assert found.classes_from == str(file)
    text("data.yaml", listed.replace("[cat, dog]", "{1: dog, 0: cat}"))
    assert opened(tmp_path).splits["val"].classes == ("cat", "dog")
    assert opened(tmp_path, classes=["x", "y", "z"]).splits["val"].classes == ("x", "y", "z")


def test_layouts__lists_of_images(tmp_path, image, text):
    for number in range(3):
        image(f"images/all/{number}.png"), text(f"labels/all/{number}.txt", BOX)
    text("train.txt", "./images/all/0.png\n./images/all/2.png\n")
    text("val.txt", "images/all/1.png")
    text("coco.yml", DATA.format(base="", train="train.txt", val="val.txt", names="[a, b]"))
    assert names(opened(tmp_path)) == {"train": ["0.png", "2.png"], "val": ["1.png"]}


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images/{}", "labels/{}"), ("{}/images", "{}/labels"), ("{}", "{}"), ("{}/a", "labels/{}")],
)
def test_layouts__without_data_yaml(tmp_path, image, text, images, labels):
    for split in ("train", "test"):
        image(f"{images.format(split)}/x.png"), text(f"{labels.format(split)}/x.txt", BOX)
    text("labels/classes.txt", "cat\ndog\n"), text("README.txt", "hello")
    found = opened(tmp_path)
    assert names(found) == {"train": ["x.png"], "test": ["x.png"]}
    assert found.splits["train"].classes == ("cat", "dog")


def test_layouts__labels_in_a_folder_of_another_name(tmp_path, image, text):
    image("images/a.png"), image("images/b.png"), text("yolo/a.txt", BOX)
    found = opened(tmp_path)
    assert [len(each.boxes) for each in samples(found)] == [1, 0]
    image("more/z.png")
    assert "left out: 1 image without annotations (" in " ".join(opened(tmp_path).notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 1.2 0.1 0.1", r"line 1 has the value 1.2 outside 0 to 1"),
        ("0 0.5 nan 0.1 0.1", "line 1 has the value nan outside 0 to 1"),
        (f"{BOX}0 0.5 -0.1 0.1 0.1", "line 2 has the value -0.1 outside 0 to 1"),
        ("0 0.5 0.5 0.1", "line 1 has 3 numbers after the class, where a box has 4"),
        ("0 0.5 0.5 0.1 0.1 0.9", "line 1 has 5 numbers after the class"),
        ("dog 0.5 0.5 0.1 0.1", "line 1 holds what is no number: dog"),
        ("1.5 0.5 0.5 0.1 0.1", "line 1 begins with 1.5, which is no number of a class"),
        ("-1 0.5 0.5 0.1 0.1", "line 1 begins with -1, which is no number of a class"),
    ],
)
def test_refuses__a_line(tmp_path, image, text, line, message):
    image("a.png"), text("a.txt", line)
    with pytest.raises(UserError, match=f"a.txt: {message}"):
        opened(tmp_path)


def test_boxes__a_share_that_was_rounded_may_be_a_little_outside(tmp_path, image, text):
    image("a.png"), text("a.txt", "0 0.5 0.5 1.0000001 1")
    assert samples(opened(tmp_path))[0].boxes.tolist() == [[0, 0, 30, 20]]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (
            "nc: 1\nnames: [a]",
            "data.yaml is no data.yaml of YOLO: it has no 'train', but nc, names",
        ),
        ("train: gone\nnames: [a, b]", r"data.yaml names gone, and there is no .*gone"),
        (
            "train: images\nnames: [a]",
            "a.png have the class 1, and .*data.yaml has 1 class, from 0",
        ),
        ("train: images\nnc: 3\nnames: [a, b]", "data.yaml has nc: 3, and names 2 classes"),
        ("train: images\nnames: [a, a]", "names must be a list of different words"),
        ("train: images\nnames: {0: a, 2: b}", "names must be numbered from 0 without gaps"),
        ("train: 5", "train must be a path or a list of paths, got 5"),
        ("train: [", r"data.yaml is no data.yaml of YOLO: while parsing"),
    ],
)
def test_refuses__data_yaml(tmp_path, image, text, yaml, message):
    image("images/a.png"), text("labels/a.txt", BOX), text("data.yaml", yaml)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_refuses__two_of_them_and_none_of_labels(tmp_path, image, text):
    image("images/a.png")
    with pytest.raises(UserError, match=r"no image to train on in .* has a label file"):
        opened(tmp_path)
    for name in ("a.yaml", "b.yaml"):
        text(name, "train: images\nnames: [a, b]")
    with pytest.raises(UserError, match=r"a.yaml and .*b.yaml are both a data.yaml of YOLO"):
        opened(tmp_path)
    text("labels/a.txt", BOX)
    assert names(opened(tmp_path, annotations="b.yaml")) == {"train": ["a.png"]}
    with pytest.raises(UserError, match=r"must be one path for YOLO: that of a data.yaml"):
        opened(tmp_path, annotations={"train": "a.yaml"})


def test_annotations__in_a_folder_of_their_own(tmp_path, image, text):
    image("photos/x/a.png"), text("elsewhere/yolo/a.txt", BOX)
    place = str(tmp_path / "elsewhere")
    assert [len(s.boxes) for s in samples(opened(tmp_path / "photos", annotations=place))] == [1]
    text("elsewhere/data.yaml", f"train: {tmp_path}/photos\nnames: [a, b]")
    found = opened(tmp_path / "photos", annotations=place)
    assert found.splits["train"].classes == ("a", "b") and len(samples(found)[0].boxes) == 1

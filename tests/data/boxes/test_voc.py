"""Pascal VOC: where XML files and images may lie, what corners are, and what is refused."""

import pytest

from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.sources.boxes.opening import open_boxes
from ssl_swin.data.sources.boxes.reading import BoxReading
from ssl_swin.errors import UserError

DOG = ("dog", (3, 4, 10, 12), False)
PIXELS = PixelFormat(1, "uint8")


def opened(path, **reading):
    return open_boxes(path, "voc", BoxReading(**reading))


def samples(opened, split="train"):
    dataset = opened.splits[split]
    members = ("image", "boxes")
    return [decode_sample(dataset[n], PIXELS, members=members) for n in range(len(dataset))]


def names(opened):
    return {split: [each.name for each in samples(opened, split)] for split in opened.splits}


def test_boxes__corners_are_pixels_from_1_or_edges_from_0(tmp_path, image, text, voc):
    image("a.png")
    cat = ("cat", (1, 1, 30, 20), True)
    text("a.xml", voc("a.png", [DOG, cat]))
    found = opened(tmp_path)
    (sample,) = samples(found)
    assert found.splits["train"].classes == ("cat", "dog")
    assert sample.boxes.tolist() == [[2, 3, 10, 12], [0, 0, 30, 20]]
    assert sample.box_labels.tolist() == [1, 0] and sample.box_crowd.tolist() == [False, True]
    assert found.notes == [
        "boxes: corners are whole pixels counted from 1, as Pascal VOC has them; "
        "data.first_pixel=0 if corners are edges counted from 0"
    ]
    asked = opened(tmp_path, first_pixel=0)
    assert samples(asked)[0].boxes.tolist() == [[3, 4, 10, 12], [1, 1, 30, 20]]
    assert asked.notes == []
    image("b.png"), text("b.xml", voc("b.png", [("dog", (0, 4.5, 2, 6), False)]))
    found = opened(tmp_path)
    assert samples(found)[0].boxes.tolist() == [[3, 4, 10, 12], [1, 1, 30, 20]]
    assert "corners are edges counted from 0, as some begin at 0" in found.notes[0]
    from_1 = samples(opened(tmp_path, first_pixel=1))
    assert from_1[1].boxes.tolist() == [[0, 3.5, 2, 6]]


def test_layouts__vocdevkit_with_its_lists(tmp_path, image, text, voc):
    for year in ("2007", "2012"):
        place = f"VOCdevkit/VOC{year}"
        for number in range(4):
            name = f"{year}_{number}"
            image(f"{place}/JPEGImages/{name}.jpg"), image(f"{place}/SegmentationClass/{name}.png")
            text(f"{place}/Annotations/{name}.xml", voc(f"{name}.jpg", [DOG]))
        text(f"{place}/ImageSets/Main/train.txt", f"{year}_0\n{year}_1\n")
        text(f"{place}/ImageSets/Main/val.txt", f"{year}_2  1\n")
        text(f"{place}/ImageSets/Main/trainval.txt", f"{year}_0\n{year}_1\n{year}_2")
        text(f"{place}/ImageSets/Main/dog_train.txt", f"{year}_3 1\n")
    text("VOCdevkit/VOC2007/ImageSets/Main/test.txt", "2007_3\n2007_9\n")
    one = opened(tmp_path / "VOCdevkit" / "VOC2012")
    assert names(one) == {"train": ["2012_0.jpg", "2012_1.jpg"], "val": ["2012_2.jpg"]}
    assert "left out: 1 image that no annotations list (2012_3.jpg)" in one.notes
    both = names(opened(tmp_path))
    assert both["train"] == [f"VOC{y}/JPEGImages/{y}_{n}.jpg" for y in (2007, 2012) for n in (0, 1)]
    assert both["val"] == ["VOC2007/JPEGImages/2007_2.jpg", "VOC2012/JPEGImages/2012_2.jpg"]
    assert both["test"] == ["2007_3.jpg"]
    lists = {"train": "ImageSets/Main/trainval.txt", "val": "ImageSets/Main/dog_train.txt"}
    chosen = opened(tmp_path / "VOCdevkit" / "VOC2012", annotations=lists)
    assert {split: len(dataset) for split, dataset in chosen.splits.items()} == {
        "train": 3,
        "val": 1,
    }


@pytest.mark.parametrize(
    ("images", "xml"),
    [
        ("images", "annotations"),
        ("images/{}", "annotations/{}"),
        ("{}/images", "{}/labels"),
        ("{}", "{}"),
        ("photos", "photos"),
        ("images", "voc"),
    ],
)
def test_layouts__folders(tmp_path, image, text, voc, images, xml):
    for split in ("train", "valid"):
        image(f"{images.format(split)}/{split}.png"), image(f"masks/{split}.png")
        text(f"{xml.format(split)}/{split}.xml", voc("other.jpg", [DOG]))
    found = opened(tmp_path)
    expected = {"train": ["train.png"], "val": ["valid.png"]}
    assert names(found) == (expected if "{}" in xml else {"train": ["train.png", "valid.png"]})
    assert found.splits["train"].file_name(0) == str(
        tmp_path / images.format("train") / "train.png"
    )


def test_images__by_the_name_in_the_file_or_left_out(tmp_path, image, text, voc):
    image("x/photo.png"), image("x/1.png")
    text("x/1.xml", voc("1.png", [DOG]))
    text("x/2.xml", voc("C:\\data\\photo.png", [DOG]))
    text("x/3.xml", voc("gone.png", [DOG]))
    found = opened(tmp_path)
    assert names(found) == {"train": ["1.png", "photo.png"]}
    assert any(
        line.startswith("left out: 1 image without a file on disk (gone.png), by")
        for line in found.notes
    )
    assert found.left_out[0].reason.endswith("3.xml is its annotation, and it is not there")


def test_objects__none_are_kept_and_others_chosen(tmp_path, image, text, voc):
    for name in "ab":
        image(f"{name}.png")
    text("a.xml", voc("a.png", [DOG, ("cat", (5, 5, 5, 9), False), ("ox", (31, 1, 40, 9), False)]))
    text("b.xml", voc("b.png"))
    found = opened(tmp_path)
    first, empty = samples(found)
    assert first.boxes.tolist() == [[2, 3, 10, 12], [4, 4, 5, 9]]  # a column of pixels
    assert empty.boxes.shape == (0, 4)
    assert any("1 box of no area inside the image (a.png [31.0, 1.0" in n for n in found.notes)
    assert "no box of train is of class ox" in found.notes
    chosen = opened(tmp_path, classes=["dog", "cat"])
    assert samples(chosen)[0].box_labels.tolist() == [0, 1]
    assert any("data.classes does not name (ox)" in note for note in chosen.notes)
    with pytest.raises(
        UserError, match=r"data.classes has 'dogs', and no object is called so, but"
    ):
        opened(tmp_path, classes=["dogs"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation>", "a.xml is no XML that can be read: no element found"),
        ("", "a.xml is no XML that can be read"),
        ("<note></note>", "a.xml is no annotation of Pascal VOC: it begins with <note>"),
        (
            '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>',
            "it declares a document type, which annotations do not need",
        ),
    ],
)
def test_refuses__what_is_no_annotation(tmp_path, image, text, content, message):
    image("a.png"), text("a.xml", content)
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("objects", "size", "message"),
    [
        ([DOG], "", "a.xml has no size of its image: its height is '' and its width ''. Write"),
        (
            [DOG],
            "<size><width>0</width><height>x</height></size>",
            "its height is 'x' and its width '0'",
        ),
        ([("dog", (1, 2, "nan", 4), 0)], None, r"object 1 \(dog\) has no box .* xmax 'nan'"),
        ([("dog", (1, 2, "", 4), 0)], None, r"object 1 \(dog\) has no box .* xmax ''"),
        ([DOG, ("", (1, 2, 3, 4), 0)], None, "a.xml: object 2 has no name"),
        ([], None, "no XML file has an object, as .*a.xml"),
        ([DOG], "<size><width>31</width><height>20</height></size>", "a.png is 20 x 30 px .* 31"),
    ],
)
def test_refuses__an_object_or_a_size(tmp_path, image, text, voc, objects, size, message):
    image("a.png"), text("a.xml", voc("a.png", objects, size))
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_refuses__folders_that_do_not_fit(tmp_path, image, text, voc):
    image("a.png")
    with pytest.raises(UserError, match=r"no XML file in .* or below"):
        opened(tmp_path)
    text("b.xml", voc("b.png", [DOG]))
    with pytest.raises(UserError, match=r"none of the 1 XML files in .* the first is b.xml"):
        opened(tmp_path)
    with pytest.raises(UserError, match=r"b.xml is a file: give the folder of the images"):
        opened(tmp_path / "b.xml")
    text("list.txt", "x\ny\n")
    with pytest.raises(UserError, match=r"none of the names in .*list.txt is that of an XML file"):
        opened(tmp_path, annotations="list.txt")

"""What all kinds of annotations have in common, and the splits of a run."""

import pickle

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.decoding import decode_sample
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.sources.boxes.dataset import BoxDataset
from ssl_swin.data.sources.boxes.objects import Objects
from ssl_swin.data.sources.boxes.opening import open_boxes
from ssl_swin.data.sources.boxes.reading import BoxReading
from ssl_swin.errors import UserError

ORDER = OrderConstants(block=1, pool=9, lanes=1)
NAMES = ("cat", "dog")


@pytest.fixture
def three_ways(tmp_path, image, text, coco, voc):
    """Six images with the same boxes as COCO, VOC and YOLO, in one folder."""
    generator = np.random.default_rng(0)
    listed = {}
    for number in range(6):
        name = f"{'north' if number < 4 else 'south'}_{number}"
        image(f"images/{name}.png")
        corners = generator.integers(0, 15, (number, 2, 2)).tolist()
        boxes = [[x, y, x + 1 + w, y + 1 + h % 5] for (x, y), (w, h) in corners]
        labels = generator.integers(0, 2, number).tolist()
        pairs = list(zip(labels, boxes, strict=True))
        listed[f"{name}.png"] = [(n + 1, [x, y, u - x, v - y]) for n, (x, y, u, v) in pairs]
        objects = [(NAMES[n], (x + 1, y + 1, u, v), False) for n, (x, y, u, v) in pairs]
        text(f"voc/{name}.xml", voc(f"{name}.png", objects))
        lines = [
            f"{n} {(x + u) / 60:.6f} {(y + v) / 40:.6f} {(u - x) / 30:.6f} {(v - y) / 20:.6f}"
            for n, (x, y, u, v) in pairs
        ]
        text(f"yolo/{name}.txt", "\n".join(lines))
    text("instances.json", coco(listed, {1: "cat", 2: "dog"}))
    text("data.yaml", "train: images\nnames: [cat, dog]")
    return tmp_path


def decoded(dataset):
    pixels = PixelFormat(1, "uint8")
    return {
        sample.name: decode_sample(sample, pixels, members=("image", "boxes"))
        for sample in map(dataset.__getitem__, range(len(dataset)))
    }


def test_open_boxes__the_same_boxes_three_ways(three_ways):
    found = {kind: open_boxes(three_ways, kind) for kind in ("coco", "voc", "yolo")}
    assert {each.splits["train"].classes for each in found.values()} == {NAMES}
    samples = {kind: decoded(each.splits["train"]) for kind, each in found.items()}
    assert sum(len(sample.boxes) for sample in samples["coco"].values()) == 15
    for kind in ("voc", "yolo"):
        assert samples[kind].keys() == samples["coco"].keys()
        for name, sample in samples["coco"].items():
            assert sample.boxes.allclose(samples[kind][name].boxes, atol=1e-4)
            assert sample.box_labels.equal(samples[kind][name].box_labels)
            assert sample.pixels.equal(samples[kind][name].pixels)


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_open_splits__holds_out_by_name_or_by_share(three_ways, kind):
    def opened(members=("image", "boxes"), **options):
        return open_splits(
            three_ways, kind, how_to_make="", order=ORDER, members=members, **options
        )

    by_name = opened(val_names=["south_*"])
    assert {split: each.num_samples for split, each in by_name.items()} == {"train": 4, "val": 2}
    assert set(decoded(by_name["val"].dataset)) == {"south_4.png", "south_5.png"}
    assert opened(val_ratio=0.5)["val"].num_samples == 3
    assert "classes: 2, " in by_name["train"].warning and by_name["train"].classes == NAMES
    plain = opened(members=("image",))["train"]
    assert plain.classes == () and plain.dataset.members == ("image",)
    assert list(plain.dataset[0].members) == ["image"]
    with pytest.raises(UserError, match=r"data.val_names has 'east_\*', which fits no image"):
        opened(val_names=["east_*"])
    with pytest.raises(UserError, match=r"holds out all 6 images, and leaves none to train on"):
        opened(val_names=["*"])
    with pytest.raises(UserError, match=f"is for shards, and data.reader={kind} reads images"):
        opened(index_dir="x")


def test_open_splits__settings_of_the_annotations(three_ways):
    def boxes(**options):
        return open_splits(
            three_ways, "coco", how_to_make="", order=ORDER, members=("boxes",), boxes=options
        )["train"]

    assert boxes(classes=["dog"], leave_out=["images/south*"]).num_samples == 4
    with pytest.raises(UserError, match=r"data.annotations must be text or a group of settings"):
        boxes(annotations=5)


def test_dataset__is_the_same_in_another_process(three_ways):
    dataset = open_boxes(three_ways, "coco").splits["train"]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy[3].members["boxes"] == dataset[3].members["boxes"]
    assert copy.fingerprint == dataset.fingerprint and copy.image_sizes().min() > 0


def test_fingerprint__changes_with_boxes_and_not_with_the_place(three_ways, tmp_path):
    def fingerprint(root=three_ways, **reading):
        return open_boxes(root, "coco", BoxReading(**reading)).splits["train"].fingerprint

    first = fingerprint()
    assert fingerprint(classes=["dog", "cat"]) != first
    moved = three_ways.rename(three_ways.with_name("moved"))
    assert fingerprint(moved) == first
    file = moved / "instances.json"
    file.write_text(file.read_text().replace('"bbox": [', '"bbox": [0.5, 0.5, 1, 1], "x": [', 1))
    assert fingerprint(moved) != first
    moved.rename(three_ways)


def turned_image(path, transposed=True):
    exif = Image.Exif()
    exif[0x0112] = 6 if transposed else 3
    Image.new("L", (30, 20)).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("said", "exif_rotation", "way_out"),
    [
        ((20, 30), False, None),
        ((20, 30), None, None),
        ((20, 30), True, "set data.exif_rotation=false"),
        ((30, 20), True, None),
        ((30, 20), None, None),
        ((30, 20), False, "set data.exif_rotation=true"),
        ((31, 20), None, "are these the annotations of other images"),
    ],
)
def test_size__of_images_that_exif_turns(tmp_path, said, exif_rotation, way_out):
    objects = Objects(turned_image(tmp_path / "a.jpg"), "a.jpg", said)
    objects.add([1, 2, 3, 4], 0)

    def dataset():
        return BoxDataset([objects], ["x"], source="a.json", exif_rotation=exif_rotation)

    if way_out is not None:
        with pytest.raises(UserError, match=way_out):
            dataset()
    else:
        sample = dataset()[0]
        assert b'"boxes": [[1, 2, 3, 4]]' in sample.member("boxes").data


@pytest.mark.parametrize(("exif_rotation", "box"), [(True, [2, 3, 4, 6]), (False, [3, 2, 6, 4])])
def test_size__shares_are_of_the_image_as_it_is_decoded(tmp_path, exif_rotation, box):
    objects = Objects(turned_image(tmp_path / "a.jpg"), "a.jpg", None)
    objects.add([0.1, 0.1, 0.2, 0.2], 0)
    dataset = BoxDataset([objects], ["x"], source="a", exif_rotation=exif_rotation)
    pixels = PixelFormat(1, "uint8", exif_rotation=exif_rotation)
    sample = decode_sample(dataset[0], pixels, members=("boxes",))
    assert sample.boxes.round().tolist() == [box]
    assert sample.size_px == ((30, 20) if exif_rotation else (20, 30))


def test_size__of_one_image_among_many_is_told_when_it_is_read(tmp_path, image):
    paths = [image(f"{number}.png", (20, 30 + (number == 1))) for number in range(40)]
    images = [Objects(path, path.name, (20, 30)) for path in paths]
    dataset = BoxDataset(images, ["x"], source="all.json")
    with pytest.raises(UserError, match=r"1.png is 20 x 31 px .* and 20 x 30 by all.json"):
        dataset[1]
    (tmp_path / "2.png").unlink()
    with pytest.raises(FileNotFoundError):
        dataset[2]


def test_open_boxes__refuses_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"gone does not exist"):
        open_boxes(tmp_path / "gone", "coco")
    with pytest.raises(UserError, match=r"kind must be coco or voc or yolo, got 'cvat'"):
        open_boxes(tmp_path, "cvat")

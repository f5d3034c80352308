from pathlib import Path

import pytest
from PIL import Image

from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.opening import open_splits as open_readers_ordered
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.stream import StreamSplit
from ssl_swin.errors import UserError

ORDER = OrderConstants(block=4, pool=64, lanes=1)
HOW_TO_MAKE = "Make it with: ssl-swin pack FOLDER shards"


def open_splits(root, reader, **options):
    return open_readers_ordered(root, reader, order=ORDER, **options)


def sizes(readers) -> dict[str, int]:
    return {split: reader.num_samples for split, reader in readers.items()}


@pytest.mark.parametrize(
    ("reader", "kind"),
    [("indexed", IndexedSplit), ("stream", StreamSplit), ("folder", IndexedSplit)],
)
def test_open_readers__finds_the_splits(photos, shards, reader, kind):
    root = photos if reader == "folder" else shards
    readers = open_splits(root, reader, how_to_make=HOW_TO_MAKE, val_ratio=0.5)
    assert sizes(readers) == {"train": 23, "val": 7}  # a val split that is there stays as it is
    assert {type(opened) for opened in readers.values()} == {kind}
    assert readers["train"].classes == ("a", "b", "c")
    assert readers["train"].summary().startswith("23 ")


def test_open_readers__holds_out_of_a_folder_without_val(photos):
    root = photos / "train"
    readers = open_splits(root, "folder", how_to_make=HOW_TO_MAKE, val_ratio=0.2)
    assert sizes(readers) == {"train": 18, "val": 5}  # 4.6, rounded up
    assert sizes(open_splits(root, "folder", how_to_make=HOW_TO_MAKE)) == {"train": 23}


@pytest.mark.parametrize("reader", ["indexed", "stream", "folder"])
def test_open_readers__no_folder(tmp_path, reader):
    with pytest.raises(UserError, match=f"no data.*{tmp_path}/nowhere.*not exist.*{HOW_TO_MAKE}"):
        open_splits(tmp_path / "nowhere", reader, how_to_make=HOW_TO_MAKE)


def test_open_readers__no_tars(photos):
    message = rf"{photos} and below it for \*\.tar, found none\. {HOW_TO_MAKE}"
    with pytest.raises(UserError, match=message):
        open_splits(photos, "stream", how_to_make=HOW_TO_MAKE)


def test_open_readers__no_images(tmp_path):
    with pytest.raises(UserError, match=f"no images in {tmp_path}"):
        open_splits(tmp_path, "folder", how_to_make=HOW_TO_MAKE)


def test_open_readers__shards_read_as_a_folder(shards):
    assert sizes(open_splits(shards, "folder", how_to_make=HOW_TO_MAKE)) == {"train": 23, "val": 7}


def test_open_readers__stream_behind_a_pipe():
    pipe = "pipe:cat /a/train-{000..012}.tar"
    with pytest.raises(UserError, match=r"cannot count the images behind a URL: give data\.num_s"):
        open_splits(pipe, "stream", how_to_make=HOW_TO_MAKE)
    (reader,) = open_splits(pipe, "stream", how_to_make=HOW_TO_MAKE, num_samples=77).values()
    assert reader.summary() == "77 images streamed from 13 shards"
    assert reader.shards[12] == "pipe:cat /a/train-012.tar"


def test_open_readers__remote_without_a_cache():
    with pytest.raises(UserError, match=r"s3://b/x lies elsewhere: use data=remote"):
        open_splits("s3://b/x", "indexed", how_to_make=HOW_TO_MAKE)


def test_open_readers__unknown_reader(shards):
    with pytest.raises(
        UserError, match="one of indexed, stream, folder, coco, voc, yolo, got 'streem'"
    ):
        open_splits(shards, "streem", how_to_make=HOW_TO_MAKE)


def test_open_readers__no_train_split(shards, tmp_path):
    for shard in shards.glob("val-*.tar"):
        (tmp_path / shard.name).write_bytes(shard.read_bytes())
    with pytest.raises(UserError, match="has no train split, only: val"):
        open_splits(tmp_path, "stream", how_to_make=HOW_TO_MAKE)


def test_open_readers__damaged_shard(shards, tmp_path):
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "train-000002.tar").write_bytes(b"x")
    with pytest.raises(UserError, match=r"train-000002\.tar has 1 bytes, the index says"):
        open_splits(tmp_path, "stream", how_to_make=HOW_TO_MAKE)


def test_open_readers__one_loose_image(tmp_path: Path):
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    readers = open_splits(tmp_path, "folder", how_to_make=HOW_TO_MAKE)
    assert (sizes(readers), readers["train"].classes) == ({"train": 1}, ())


# Folders of images


def write_files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def test_open_folder__says_how_it_was_read(tmp_path: Path):
    write_files(tmp_path, "images/0.jpg", "images/1.jpg", "masks/0.png", "x.heic")
    train = open_splits(tmp_path, "folder", how_to_make=HOW_TO_MAKE)["train"]
    assert train.warning.splitlines() == [
        "images are read file by file; packed into shards they read faster",
        f"classes: none, since the images lie in {tmp_path}/images itself",
        "masks: 1 of masks/ pair with 1 of images/",
        "without a mask: 1 image has none (images/1.jpg)",
        "left out: 1 file that is no image: 1 .heic (x.heic, read with pip install pillow-heif)",
    ]
    assert (train.num_samples, list(train.dataset[0].members)) == (2, ["image"])


def test_open_folder__members_that_are_asked_for(tmp_path: Path):
    write_files(tmp_path, *(f"images/{n}.jpg" for n in range(5)), "masks/0.png", "masks/1.png")
    options = {"how_to_make": HOW_TO_MAKE, "members": ("image", "mask"), "val_ratio": 0.5}
    splits = open_splits(tmp_path, "folder", **options)
    assert sizes(splits) == {"train": 1, "val": 1}
    assert {*splits["val"].dataset[0].members} == {"image", "mask"}


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ({"leave_out": ["extra set"]}, {"train": 1, "val": 1}),
        ({"labelled": False}, {"train": 2, "val": 1}),
        ({"splits": False}, {"train": 3}),
    ],
)
def test_open_folder__mixture_of_splits_and_others(tmp_path: Path, folder, expected):
    write_files(tmp_path, "train/a/0.jpg", "val/a/0.jpg", "extra set/0.jpg")
    with pytest.raises(UserError) as caught:
        open_splits(tmp_path, "folder", how_to_make=HOW_TO_MAKE)
    assert str(caught.value).endswith(
        "Leave them out: data.leave_out=['extra set']; or take them for more training images: "
        "data.labels=false; or, if the names mean no splits, take all folders for classes: "
        "data.splits=false"
    )
    splits = open_splits(tmp_path, "folder", how_to_make=HOW_TO_MAKE, folder=folder)
    assert sizes(splits) == expected


def test_open_folder__splits_that_differ(tmp_path: Path):
    write_files(tmp_path, "train/a/0.jpg", "val/b/0.jpg")
    with pytest.raises(UserError, match=r"or leave the labels out: data\.labels=false$"):
        open_splits(tmp_path, "folder", how_to_make=HOW_TO_MAKE)

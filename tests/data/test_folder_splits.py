"""Which images of a folder are which split and class, and what is refused."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.sources.layout import Reading
from ssl_swin.data.sources.opening import OpenedData, open_data
from ssl_swin.errors import UserError


def write_files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"bytes of {name}".encode())
    return root


def in_folders(*folders: str) -> list[str]:
    """Two files in each folder; their numbers tell the folders apart."""
    return [f"{folder}/{2 * n + i}.jpg" for n, folder in enumerate(folders) for i in range(2)]


def open_folders(root: Path, *folders: str, **options: object) -> OpenedData:
    return open_data(write_files(root / "x", *in_folders(*folders)), Reading(**options))  # type: ignore[arg-type]


def names(source: ImageDataset) -> list[str]:
    return [source[index].name for index in range(len(source))]


def refused(root: Path, files: Sequence[str], message: str, **options: object) -> None:
    write_files(root / "x", *files)
    with pytest.raises(UserError) as caught:
        open_data(root / "x", Reading(**options))  # type: ignore[arg-type]
    assert str(caught.value).replace(f"{root}/", "") == message


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "valid", "Testing"),
        ("TRAIN", "VAL", "TEST"),
        ("train2017", "val2017", "test2017"),
        ("train_images", "val_images", "test_images"),
        ("training", "validation", "testing"),
        ("train", "dev", "test"),
        ("train", "eval", "test"),
        ("imagesTr", "images_val", "imagesTs"),
        ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),
        ("DIV2K_train_HR", "DIV2K_valid_HR", "DIV2K_test_HR"),
        ("a/b/train", "a/b/val", "a/b/test"),  # the only folder there is
    ],
)
def test_split_folders__by_any_name_in_use(tmp_path: Path, train: str, val: str, test: str) -> None:
    folders = [f"{split}/{c}" for split in (train, val, test) for c in ("cat", "dog")]
    opened = open_folders(tmp_path, *folders)
    assert {split: names(source) for split, source in opened.splits.items()} == {
        "train": ["cat/0.jpg", "cat/1.jpg", "dog/2.jpg", "dog/3.jpg"],
        "val": ["cat/4.jpg", "cat/5.jpg", "dog/6.jpg", "dog/7.jpg"],
        "test": ["cat/8.jpg", "cat/9.jpg", "dog/10.jpg", "dog/11.jpg"],
    }
    assert opened.classes_line() == f"classes: 2, the sub-folders of {tmp_path}/x/{train}"
    assert opened.splits["test"].labels().tolist() == [0, 0, 1, 1]


def test_split_folders__without_classes(tmp_path: Path) -> None:
    opened = open_folders(tmp_path, "train2017", "val2017")
    assert {s: names(source) for s, source in opened.splits.items()} == {
        "train": ["0.jpg", "1.jpg"],
        "val": ["2.jpg", "3.jpg"],
    }
    line = f"classes: none, since the images lie in {tmp_path}/x/train2017 itself"
    assert opened.classes_line() == line


def test_split_folders__beside_folders_without_images(tmp_path: Path) -> None:
    write_files(tmp_path / "x", "annotations/instances.json", "labels/0.txt")
    opened = open_folders(tmp_path, "train2017", "val2017")
    assert {s: len(source) for s, source in opened.splits.items()} == {"train": 2, "val": 2}


def test_splits_in_every_class(tmp_path: Path) -> None:
    opened = open_folders(tmp_path, "cat/test", "cat/train", "dog/test", "dog/train")
    assert names(opened.splits["train"]) == [
        "cat/train/2.jpg", "cat/train/3.jpg", "dog/train/6.jpg", "dog/train/7.jpg",
    ]  # fmt: skip
    assert names(opened.splits["test"])[0] == "cat/test/0.jpg"
    assert opened.splits["test"].labels().tolist() == [0, 0, 1, 1]
    assert opened.classes_line() == "classes: 2, the folders that each hold test and train"
    unlabelled = open_data(tmp_path / "x", Reading(labelled=False))
    assert unlabelled.splits["train"].classes == ()
    assert names(unlabelled.splits["train"]) == names(opened.splits["train"])


MIXED = (
    "x has folders that are named like splits (train, val) and others (extra): what are the "
    "others? Leave them out: --leave-out extra; or take them for more training images: "
    "--no-labels; or, if the names mean no splits, take all folders for classes: --no-splits"
)


def test_mixture__is_refused(tmp_path: Path) -> None:
    refused(tmp_path, in_folders("train/a", "train/b", "val/a", "val/b", "extra"), MIXED)


def test_mixture__ways_on(tmp_path: Path) -> None:
    folders = ("train/a", "train/b", "val/a", "val/b", "extra")
    left_out = open_folders(tmp_path, *folders, leave_out=["extra"]).splits
    assert {s: (len(d), d.classes) for s, d in left_out.items()} == {
        "train": (4, ("a", "b")),
        "val": (4, ("a", "b")),
    }
    unlabelled = open_folders(tmp_path, *folders, labelled=False).splits
    assert names(unlabelled["train"])[0] == "extra/8.jpg"
    assert {split: len(source) for split, source in unlabelled.items()} == {"train": 6, "val": 4}
    as_classes = open_folders(tmp_path, *folders, splits=False).splits
    assert {s: (len(d), d.classes) for s, d in as_classes.items()} == {
        "train": (10, ("extra", "train", "val"))
    }


@pytest.mark.parametrize(
    ("folders", "named", "others"),
    [
        (["bus", "car", "train"], "train", "bus, car"),
        (["cats", "dogs_test", "dogs_train"], "dogs_test, dogs_train", "cats"),
        (["pred", "test", "train"], "test, train", "pred"),
        (["test", "train_and_more", "z"], "test", "train_and_more, z"),
        (["train", "val", "val_old"], "train, val", "val_old"),
    ],
)
def test_mixture__kinds(tmp_path: Path, folders: list[str], named: str, others: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"({named}) and others ({others})")):
        open_folders(tmp_path, *folders)


def test_mixture__others_that_are_for_evaluation(tmp_path: Path) -> None:
    message = (
        "x has folders that are named like splits (train, val) and others (val_old): what are the "
        "others? Leave them out: --leave-out val_old; or, if the names mean no splits, take all "
        "folders for classes: --no-splits"
    )
    for labelled in (True, False):
        refused(tmp_path, in_folders("train/a", "val/a", "val_old/a"), message, labelled=labelled)


def test_mixture__a_nested_copy(tmp_path: Path) -> None:
    files = in_folders("train/a", "val/a", "chest_xray/train/a", "chest_xray/val/a")
    message = (
        "x has the folders chest_xray, train, val, and chest_xray holds folders of the same names "
        "again (train, val): a copy? Leave it out: --leave-out chest_xray"
    )
    refused(tmp_path, files, message)
    refused(tmp_path, files, message, labelled=False)
    left_out = open_data(tmp_path / "x", Reading(leave_out=["chest_xray"]))
    assert {split: len(source) for split, source in left_out.splits.items()} == {
        "train": 2,
        "val": 2,
    }


def test_copy_of_the_class_folders(tmp_path: Path) -> None:
    refused(
        tmp_path,
        in_folders("a", "b", "c", "Plants/a", "Plants/b", "Plants/c"),
        "x/Plants holds folders of the same names as those beside it (a, b, c): a copy? Leave it "
        "out: --leave-out Plants; or take all without labels: --no-labels",
    )


@pytest.mark.parametrize(
    "folders",
    [
        ["cat", "cat/test", "dog"],
        ["cat/deep/val2017", "dog"],
        ["train/cat", "train/dog", "train/test", "val/cat", "val/dog"],
        ["a/train", "a/test", "b/train", "b/odd"],
    ],
)
def test_evaluation_images_among_training_images(tmp_path: Path, folders: list[str]) -> None:
    for labelled in (True, False):
        with pytest.raises(UserError, match=r"named like (a split for|splits \(train\)|.*a split)"):
            open_folders(tmp_path, *folders, labelled=labelled)


def test_evaluation_images_among_training_images__message(tmp_path: Path) -> None:
    refused(
        tmp_path,
        in_folders("cat", "cat/test", "dog"),
        "x/cat/test is named like a split for evaluation, but lies among images to train on. Leave "
        "it out: --leave-out cat/test; or, if the name means no split: --no-splits",
    )


def test_numbered_files_of_several_splits(tmp_path: Path) -> None:
    files = [f"{split}_{number:03}.jpg" for split in ("train", "test") for number in range(3)]
    message = (
        "x{} has images that are named like ones to train on (train_000.jpg) and like ones for "
        "evaluation (test_000.jpg). Move them to folders train and val; or leave some out: "
        "--leave-out '{}test*'; or, if the names mean no splits: --no-splits"
    )
    refused(tmp_path, files, message.format("", ""))
    in_class = write_files(tmp_path / "y", *(f"cat/{name}" for name in files), "dog/test_0.jpg")
    with pytest.raises(UserError, match="leave-out 'cat/test"):
        open_data(in_class)
    assert len(open_data(in_class, Reading(leave_out=["cat/test*"])).splits["train"]) == 4


@pytest.mark.parametrize(
    ("train", "test", "pattern"),
    [
        ("COCO_train2014_000001.jpg", "COCO_val2014_000001.jpg", "*val*"),
        ("img-train-1.jpg", "img-Test-1.jpg", "*Test*"),
        ("0001_train.jpg", "0002_test.jpg", "*test*"),
    ],
)
def test_files_that_name_their_split(tmp_path: Path, train: str, test: str, pattern: str) -> None:
    write_files(tmp_path, train, test)
    with pytest.raises(UserError, match=re.escape(f"--leave-out '{pattern}'")):
        open_data(tmp_path)
    assert len(open_data(tmp_path, Reading(leave_out=[pattern])).splits["train"]) == 1
    assert len(open_data(tmp_path, Reading(splits=False)).splits["train"]) == 2


@pytest.mark.parametrize(
    "name", ["test pattern.jpg", "test.jpg", "contest_1.jpg", "val-disere.jpg"]
)
def test_numbered_files__beside_others(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, "train_1.jpg", "train station.jpg", name)
    assert len(open_data(tmp_path).splits["train"]) == 3


def test_split_with_a_folder_of_images_beside_one_with_classes(tmp_path: Path) -> None:
    """As in Tiny ImageNet: images/ in val/ is no class."""
    folders = ("train/n1/images", "train/n2/images", "val/images")
    unlabelled = open_folders(tmp_path, *folders, labelled=False)
    assert {split: len(source) for split, source in unlabelled.splits.items()} == {
        "train": 4,
        "val": 2,
    }
    refused(
        tmp_path,
        [],
        "the splits differ in their classes: train has 2, val has 0 (only in train: n1, n2; only "
        "in val: none). Make the class folders equal, give those of val by --val-labels, or leave "
        "the labels out: ssl-swin pack --no-labels",
    )
    labels = tmp_path / "labels.txt"
    labels.write_text("n2\nn1\n")
    labelled = open_data(tmp_path / "x", val_labels=labels)
    assert labelled.splits["val"].labels().tolist() == [1, 0]


@pytest.mark.parametrize("folders", [["test/a", "test/b"], ["test/a", "val/a"], ["Testing"]])
def test_nothing_to_train_on(tmp_path: Path, folders: list[str]) -> None:
    with pytest.raises(UserError, match=r"x has no split to train on, only: test.*give their own"):
        open_folders(tmp_path, *folders)
    own = open_data(tmp_path / "x" / folders[0].partition("/")[0])  # then it is meant
    assert list(own.splits) == ["train"]
    assert set(open_data(tmp_path / "x", any_split=True).splits) <= {"val", "test"}


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    message = (
        "x has two folders for one split: PrivateTest, PublicTest. Join them, or leave one out: "
        "--leave-out PublicTest"
    )
    files = in_folders("Training/a", "PublicTest/a", "PrivateTest/a")
    refused(tmp_path, files, message)
    assert len(open_data(tmp_path / "x", Reading(leave_out=["PublicTest"])).splits["test"]) == 2


def test_split_folder_without_images(tmp_path: Path) -> None:
    files = [*in_folders("train/a", "train/b"), "test/0.dcm"]
    message = (
        "no images in x/test (left out: 1 file that is no image: 1 .dcm (test/0.dcm)). Leave it "
        "out: --leave-out test"
    )
    refused(tmp_path, files, message)


# How the classes were found


@pytest.mark.parametrize(
    ("folders", "line"),
    [
        (["cat", "dog"], "classes: 2, the sub-folders of x"),
        (["."], "classes: none, since the images lie in x itself"),
        (["cat"], "classes: 1, the only sub-folder of x with images, cat"),
        (
            ["y/cat", "y/dog"],
            "classes: 1, the only sub-folder of x with images, y; for those in it as classes, give "
            "x/y itself",
        ),
        (
            ["cat", "."],
            "classes: none, since 2.jpg, 3.jpg lie beside the sub-folders cat; to take those for "
            "classes: --leave-out 2.jpg --leave-out 3.jpg",
        ),
    ],
)
def test_classes_line(tmp_path: Path, folders: list[str], line: str) -> None:
    opened = open_folders(tmp_path, *folders)
    assert opened.classes_line().replace(f"{tmp_path}/", "") == line


def test_classes_line__without_labels(tmp_path: Path) -> None:
    opened = open_folders(tmp_path, "cat", "dog", labelled=False)
    assert opened.classes_line() == "classes: none, since labels are left out"


def test_stray_image__costs_the_classes_of_one_split(tmp_path: Path) -> None:
    refused(
        tmp_path,
        [*in_folders("train/cat", "train/dog", "val/cat", "val/dog"), "train/preview.png"],
        "train has no classes, unlike val, since preview.png lies beside the sub-folders cat, dog; "
        "to take those for classes: --leave-out train/preview.png; or leave the labels out: "
        "--no-labels",
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "shown"),
    [
        (
            "cafe\u0301",
            "caf\u00e9",
            r"'cafe\u0301' of train and 'caf\xe9' of val differ only in how their letters are "
            "encoded (Unicode NFC and NFD)",
        ),
        ("Cat", "cat", "'Cat' of train and 'cat' of val differ only in capital letters"),
        ("cat ", "cat", "'cat ' of train and 'cat' of val differ only in blanks at their ends"),
    ],
)
def test_class_names_that_look_equal(tmp_path: Path, ours: str, theirs: str, shown: str) -> None:
    refused(
        tmp_path,
        in_folders(f"train/{ours}", "train/x", f"val/{theirs}", "val/x"),
        f"the splits differ in their classes: train has 2, val has 2 ({shown}). Make the class "
        "folders equal, or leave the labels out: ssl-swin pack --no-labels",
    )


def test_class_names_that_look_equal__in_one_split(tmp_path: Path) -> None:
    opened = open_folders(tmp_path, "Cat", "cat", "dog")
    assert opened.notes == ["two classes differ only in capital letters: 'Cat' and 'cat'"]

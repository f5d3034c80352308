"""Masks and boxes beside images in folders: what pairs with what, and what is said of the rest."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.encoded import Member
from ssl_swin.data.packing.pack import pack
from ssl_swin.data.shards.dataset import ShardDataset
from ssl_swin.data.sources.image_folder import FolderDataset
from ssl_swin.data.sources.layout import Reading
from ssl_swin.data.sources.opening import OpenedData, open_data
from ssl_swin.errors import UserError


def write_files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"bytes of {name}".encode())
    return root


def several(folder: str, ending: str, number: int = 3) -> list[str]:
    return [f"{folder}/{index}{ending}" for index in range(number)]


def masks_of(opened: OpenedData, split: str = "train") -> dict[str, str]:
    """Returns the file of the mask by the name of the image."""
    source = opened.splits[split]
    samples = [source[index] for index in range(len(source))]
    return {
        sample.name: sample.members["mask"].data.decode().removeprefix("bytes of ")
        for sample in samples
        if "mask" in sample.members
    }


def refused(root: Path, files: Sequence[str], message: str, **options: object) -> None:
    write_files(root, *files)
    with pytest.raises(UserError) as caught:
        open_data(root, Reading(**options))  # type: ignore[arg-type]
    assert str(caught.value).replace(str(root), "x") == message


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks"),
        ("image", "mask"),
        ("imgs", "labels"),
        ("JPEGImages", "SegmentationClass"),
        ("images", "annotations"),
        ("Images", "GroundTruth"),
        ("images_png", "masks_png"),
        ("input", "gt"),
        ("photos", "masks"),  # the only folder beside it, and of other types
        ("images", "masks_512"),
        ("images", "annotations/trimaps"),
    ],
)
def test_folder_of_masks__beside_one_of_images(tmp_path: Path, images: str, masks: str) -> None:
    files = [*several(images, ".jpg"), *several(masks, ".png")]
    opened = open_data(write_files(tmp_path, *files))
    assert opened.notes == [f"masks: 3 of {masks}/ pair with 3 of {images}/"]
    assert opened.splits["train"].classes == ()
    assert set(masks_of(opened).values()) == {f"{masks}/{index}.png" for index in range(3)}
    assert len(opened.splits["train"]) == 3  # masks are no images
    assert opened.splits["train"].members == ("image", "mask")


def test_folder_of_masks__names_and_classes(tmp_path: Path) -> None:
    files = [*several("images", ".jpg"), *several("masks", ".png")]
    opened = open_data(write_files(tmp_path, *files))
    assert masks_of(opened) == {f"{index}.jpg": f"masks/{index}.png" for index in range(3)}
    assert (
        opened.classes_line() == f"classes: none, since the images lie in {tmp_path}/images itself"
    )
    assert opened.splits["train"][0].members["mask"] == Member(b"bytes of masks/0.png", "png")


@pytest.mark.parametrize(
    ("train", "train_masks", "val", "val_masks"),
    [
        ("train/images", "train/masks", "val/images", "val/masks"),
        ("images/train", "masks/train", "images/val", "masks/val"),
        ("images/training", "annotations/training", "images/validation", "annotations/validation"),
        ("images/train2017", "labels/train", "images/val2017", "labels/val"),
        ("train_images", "train_masks", "val_images", "val_masks"),
        ("train", "train_labels", "val", "val_labels"),
        ("train", "trainannot", "val", "valannot"),
        ("set/images/train", "set/masks/train", "set/images/val", "set/masks/val"),
    ],
)
def test_folder_of_masks__with_splits(
    tmp_path: Path, train: str, train_masks: str, val: str, val_masks: str
) -> None:
    files = [*several(train, ".jpg"), *several(train_masks, ".png")]
    files += [*several(val, ".jpg", 2), *several(val_masks, ".png", 2)]
    opened = open_data(write_files(tmp_path, *files))
    assert {split: len(source) for split, source in opened.splits.items()} == {"train": 3, "val": 2}
    assert masks_of(opened) == {f"{index}.jpg": f"{train_masks}/{index}.png" for index in range(3)}
    assert masks_of(opened, "val") == {f"{i}.jpg": f"{val_masks}/{i}.png" for i in range(2)}
    assert not opened.left_out


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (".jpg", "_mask.png"),
        (".jpg", ".mask.png"),
        (".png", "-seg.png"),
        ("_sat.jpg", "_mask.png"),
        (".JPG", "_Segmentation.npy"),
    ],
)
def test_mask_beside_its_image(tmp_path: Path, image: str, mask: str) -> None:
    opened = open_data(write_files(tmp_path, *several("a", image), *several("b", image)[:1],
                                   *several("a", mask), *several("b", mask)[:1]))  # fmt: skip
    assert masks_of(opened) == {
        f"a/0{image}": f"a/0{mask}",
        f"a/1{image}": f"a/1{mask}",
        f"a/2{image}": f"a/2{mask}",
        f"b/0{image}": f"b/0{mask}",
    }
    assert opened.splits["train"].classes == ("a", "b")
    ending = mask[1:-4].lower()
    assert opened.notes == [
        f"masks: 3 of the files *_{ending} pair with 3 of a/",
        f"masks: 1 of the files *_{ending} pair with 1 of b/",
    ]


@pytest.mark.parametrize("ending", ["_gtFine_labelIds.png", "_L.png"])
def test_folder_of_masks__with_longer_names(tmp_path: Path, ending: str) -> None:
    images = several("leftImg8bit/train/bonn", "_leftImg8bit.png" if "gt" in ending else ".png")
    files = [*images, *several("gtFine/train/bonn", ending)]
    opened = open_data(write_files(tmp_path, *files))
    assert len(masks_of(opened)) == 3
    assert opened.notes == ["masks: 3 of gtFine/ pair with 3 of leftImg8bit/"]


def test_what_has_no_partner__is_counted_and_named(tmp_path: Path) -> None:
    files = [*several("images", ".jpg", 4), *several("masks", ".png", 2)]
    files += ["masks/8.png", "masks/9.png", "masks/2.tif"]
    opened = open_data(write_files(tmp_path, *files))
    assert opened.notes == [
        "masks: 2 of masks/ pair with 2 of images/",
        "without a mask: 2 images have none (images/2.jpg, images/3.jpg)",
        "left out: 3 files that belong to images (masks/2.tif, masks/8.png, masks/9.png): a mask "
        "must be a PNG or an .npy file; a mask without an image",
    ]
    assert [(file.name, file.reason) for file in opened.left_out] == [
        ("masks/2.tif", "a mask must be a PNG or an .npy file"),
        ("masks/8.png", "a mask without an image"),
        ("masks/9.png", "a mask without an image"),
    ]
    assert len(opened.splits["train"]) == 4


def test_images_without_a_mask__left_out_where_it_is_asked_for(tmp_path: Path) -> None:
    files = [*several("images", ".jpg", 4), *several("masks", ".png", 2)]
    opened = open_data(write_files(tmp_path, *files), members=["image", "mask"])
    assert list(masks_of(opened)) == ["0.jpg", "1.jpg"]
    assert len(opened.splits["train"]) == 2
    assert "left out: 2 images without mask" in opened.notes
    alone = open_data(tmp_path, members=["image"])
    assert len(alone.splits["train"]) == 4
    assert alone.splits["train"].members == ("image",)
    assert list(alone.splits["train"][0].members) == ["image"]


def test_masks_that_are_asked_for_and_are_not_there(tmp_path: Path) -> None:
    write_files(tmp_path, *several("cat", ".jpg"))
    with pytest.raises(UserError, match=r"of train in \S+ have no member 'mask', only: image$"):
        open_data(tmp_path, members=["image", "mask"])


def test_further_members(tmp_path: Path) -> None:
    files = [*several("images", ".png"), *several("annotations", ".png")]
    files += [*several("instances", ".png"), "images/1.boxes.json", "images/7.boxes.json"]
    opened = open_data(write_files(tmp_path, *files))
    sample = opened.splits["train"][1]
    assert {name: member.data.decode() for name, member in sample.members.items()} == {
        "image": "bytes of images/1.png",
        "mask": "bytes of annotations/1.png",
        "instances": "bytes of instances/1.png",
        "boxes": "bytes of images/1.boxes.json",
    }
    assert opened.notes == [
        "masks: 3 of annotations/ pair with 3 of images/",
        "member instances: 3 of instances/ pair with 3 of images/",
        "boxes: 1 of the files *.boxes.json pair with 1 of images/",
        "left out: 1 file that belongs to images (images/7.boxes.json): boxes without an image",
    ]


def test_loose_images__with_a_folder_of_masks(tmp_path: Path) -> None:
    opened = open_data(write_files(tmp_path, "0.jpg", "1.jpg", "masks/0.png", "masks/1.png"))
    assert masks_of(opened) == {"0.jpg": "masks/0.png", "1.jpg": "masks/1.png"}


def test_masks_in_many_places__one_line(tmp_path: Path) -> None:
    files = [f"class{c}/0{ending}" for c in range(6) for ending in (".jpg", "_mask.png")]
    opened = open_data(write_files(tmp_path, *files))
    assert opened.notes == [
        "masks: 6 of the files *_mask and 5 more places pair with 6 of class0/ and so on"
    ]


# What is no mask


@pytest.mark.parametrize(
    "folders", [["mask", "no_mask"], ["with_mask", "without_mask"], ["normal", "pneumonia"]]
)
def test_classes_named_like_masks(tmp_path: Path, folders: list[str]) -> None:
    files = [name for folder in folders for name in several(folder, ".jpg")]
    opened = open_data(write_files(tmp_path, *files))
    assert opened.splits["train"].classes == tuple(folders)
    assert opened.notes == []


def test_photograph_of_a_mask(tmp_path: Path) -> None:
    opened = open_data(write_files(tmp_path, "face.jpg", "gas_mask.jpg"))
    assert (len(opened.splits["train"]), opened.notes) == (2, [])


def test_no_masks__takes_all_for_images(tmp_path: Path) -> None:
    files = [*several("images", ".jpg"), *several("masks", ".png"), "images/0_mask.png"]
    opened = open_data(write_files(tmp_path, *files), Reading(masks=False))
    assert opened.splits["train"].classes == ("images", "masks")
    assert (len(opened.splits["train"]), opened.notes) == (7, [])


# What is refused


def test_masks_of_other_names(tmp_path: Path) -> None:
    refused(
        tmp_path,
        [*several("images", ".jpg"), *(f"masks/m{number}.png" for number in range(3))],
        "masks/ is named like masks of images/, but no names pair, such as masks/m0.png and "
        "images/0.jpg. Give each mask the name of its image; or leave the folder out: --leave-out "
        "masks; or, if these are no masks: --no-masks",
    )


def test_masks_with_loss(tmp_path: Path) -> None:
    refused(
        tmp_path,
        [*several("images", ".jpg"), *several("masks", ".jpg")],
        "masks/ holds no mask that can be read (masks/0.jpg: a mask must be a PNG or an .npy). "
        "Give each mask the name of its image; or leave the folder out: --leave-out masks; or, if "
        "these are no masks: --no-masks",
    )


def test_masks_of_unknown_images(tmp_path: Path) -> None:
    refused(
        tmp_path,
        [*several("cats", ".jpg"), *several("dogs", ".jpg"), *several("masks", ".png")],
        "masks/ is named like masks and holds what masks are stored as, unlike the folders beside "
        "it (cats, dogs), but no folder is named like the one of their images. Call that images/; "
        "or leave the masks out: --leave-out masks; or, if these are no masks: --no-masks",
    )


def test_masks_of_the_same_name_beside_their_images(tmp_path: Path) -> None:
    write_files(tmp_path, *several(".", ".jpg"))
    for number in range(3):
        Image.new("L", (2, 2)).save(tmp_path / f"{number}.png")
    refused(
        tmp_path,
        [],
        "each *.png has the name of an image beside it, and one channel (0.png, 1.png, 2.png): are "
        "these masks? Then say so: --masks x; or leave them out: --leave-out '*.png'; or, if "
        "these are no masks: --no-masks",
    )
    assert len(open_data(tmp_path, Reading(masks=False)).splits["train"]) == 6
    Image.new("RGB", (2, 2)).save(tmp_path / "1.png")  # then they are pictures
    assert len(open_data(tmp_path).splits["train"]) == 6


def test_split_without_masks(tmp_path: Path) -> None:
    files = [*several("train/images", ".jpg"), *several("train/masks", ".png")]
    opened = open_data(write_files(tmp_path, *files, *several("test/images", ".jpg")))
    assert {split: len(source) for split, source in opened.splits.items()} == {
        "train": 3,
        "test": 3,
    }
    assert opened.notes == [
        "masks: 3 of train/masks/ pair with 3 of train/images/",
        "without a mask: 3 images have none (test/images/0.jpg, test/images/1.jpg, "
        "test/images/2.jpg)",
    ]


def test_masks_without_their_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"all 3 files of a/ are named like masks \(0_mask\.png, "):
        open_data(write_files(tmp_path, *several("a", "_mask.png"), *several("b", ".jpg")))


@pytest.mark.parametrize("labelled", [True, False])
def test_masks_beside_splits(tmp_path: Path, labelled: bool) -> None:
    files = [*several("train", ".png"), *several("test", ".png"), *several("ground_truth", ".png")]
    refused(
        tmp_path,
        files,
        "x has folders of splits (test, train), and ground_truth, which is named like masks, but "
        "no name in it pairs with an image of a folder beside it. Put masks beside the images of "
        "each split, as train/images and train/masks; or leave it out: --leave-out ground_truth",
        labelled=labelled,
    )


# The order of samples, and packing


def test_fingerprint__is_that_of_the_images_unless_masks_are_read(tmp_path: Path) -> None:
    write_files(tmp_path, *several("images", ".jpg"))
    before = FolderDataset(tmp_path / "images")
    write_files(tmp_path, *several("masks", ".png"))
    images = open_data(tmp_path, members=["image"]).splits["train"]
    both = open_data(tmp_path, members=["image", "mask"]).splits["train"]
    assert images.fingerprint == before.fingerprint != both.fingerprint


def test_pack__masks_are_members_to_the_byte(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    stored = {}
    for number in range(6):
        for folder, shape in (("images", (8, 6, 3)), ("masks", (8, 6))):
            png = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(png, "PNG")
            path = tmp_path / "set" / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png.getvalue())
            stored[folder, number] = png.getvalue()
    opened = open_data(tmp_path / "set")
    report = pack(opened.splits, tmp_path / "out", num_workers=0, progress=False)
    packed = ShardDataset(report.index, "train")
    assert (packed.members, report.index.members) == (("image", "mask"), ("mask.png",))
    pairs = {(s.data, s.members["mask"].data) for s in map(packed.__getitem__, range(6))}
    assert pairs == {(stored["images", n], stored["masks", n]) for n in range(6)}


def test_real_sets(tmp_path: Path) -> None:
    """The layout of ADE20K, with masks of instances besides."""
    files = [
        f"{folder}/{split}/tile_{number:02}.png"
        for folder in ("images", "annotations", "instances")
        for split, numbers in (("train", range(12)), ("validation", range(12, 16)))
        for number in numbers
    ]
    write_files(tmp_path, *files, "instances_train.json", "instances_validation.json", "LICENSE")
    opened = open_data(tmp_path)
    assert {s: len(source) for s, source in opened.splits.items()} == {"train": 12, "val": 4}
    assert masks_of(opened, "val")["tile_12.png"] == "annotations/validation/tile_12.png"
    assert opened.notes == [
        "masks: 16 of annotations/ pair with 16 of images/",
        "member instances: 16 of instances/ pair with 16 of images/",
    ]

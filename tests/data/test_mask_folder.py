"""Masks in a folder that is named: what pairs with what, and what is refused."""

from pathlib import Path

import pytest

from ssl_swin.data.sources.layout import Reading
from ssl_swin.data.sources.opening import OpenedData, open_data
from ssl_swin.errors import UserError


def write_files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(f"bytes of {name}".encode())
    return root


def opened(images: Path, masks: Path, **options: bool) -> OpenedData:
    return open_data(images, Reading(masks=str(masks), labelled=False, **options))


def pairs(found: OpenedData, split: str = "train") -> dict[str, str]:
    """Returns the file of the mask by the name of the image."""
    source = found.splits[split]
    samples = [source[index] for index in range(len(source))]
    return {
        sample.name: sample.members["mask"].data.decode().removeprefix("bytes of ")
        for sample in samples
        if "mask" in sample.members
    }


def test_masks_elsewhere__with_paths_of_the_images(tmp_path: Path) -> None:
    write_files(tmp_path, "photos/a/0.jpg", "photos/b/0.jpg", "photos/b/1.jpg")
    write_files(tmp_path, "truth/a/0.png", "truth/b/0.png", "truth/c/7.png", "truth/b/1.jpg")
    found = opened(tmp_path / "photos", tmp_path / "truth")
    assert pairs(found) == {"a/0.jpg": "truth/a/0.png", "b/0.jpg": "truth/b/0.png"}
    assert found.notes == [
        f"masks: 2 of {tmp_path}/truth/ pair with 2 of {tmp_path}/photos/",
        "without a mask: 1 image has none (b/1.jpg)",
        "left out: 2 files that belong to images (../truth/b/1.jpg, ../truth/c/7.png): a mask must "
        "be a PNG or an .npy file; a mask without an image",
    ]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (("images/train", "images/val"), ("train", "validation")),
        (("train/images", "val/images"), ("masks/training", "masks/validation")),
        (("train", "val"), ("train/labels", "val/labels")),
    ],
)
def test_masks_elsewhere__with_splits(
    tmp_path: Path, images: tuple[str, str], masks: tuple[str, str]
) -> None:
    train, val = (write_files(tmp_path, f"photos/{name}/0.jpg") for name in images)
    assert train == val
    write_files(tmp_path, *(f"truth/{name}/0_mask.png" for name in masks))
    found = opened(tmp_path / "photos", tmp_path / "truth")
    assert pairs(found) == {"0.jpg": f"truth/{masks[0]}/0_mask.png"}
    assert pairs(found, "val") == {"0.jpg": f"truth/{masks[1]}/0_mask.png"}


def test_masks_below_the_images__under_a_name_that_says_nothing(tmp_path: Path) -> None:
    write_files(tmp_path, "0.jpg", "1.jpg", "made by hand/0.png", "made by hand/1.png")
    found = opened(tmp_path, tmp_path / "made by hand")
    assert pairs(found) == {"0.jpg": "made by hand/0.png", "1.jpg": "made by hand/1.png"}
    assert len(found.splits["train"]) == 2
    assert found.classes_line() == "classes: none, since labels are left out"


def test_masks_beside_images__of_the_same_names(tmp_path: Path) -> None:
    write_files(tmp_path, "0.jpg", "0.png", "1.jpg", "1.npy", "2.png", "deep/0.tif", "deep/0.png")
    found = opened(tmp_path, tmp_path)
    assert pairs(found) == {"0.jpg": "0.png", "1.jpg": "1.npy", "deep/0.tif": "deep/0.png"}
    assert found.notes == [
        f"masks: 3 of the files *.png and *.npy pair with 3 of {tmp_path}/",
        "without a mask: 1 image has none (2.png)",
    ]


def test_masks_elsewhere__in_place_of_those_that_names_tell(tmp_path: Path) -> None:
    write_files(tmp_path, "set/images/0.jpg", "set/masks/0.png", "mended/0.png")
    found = opened(tmp_path / "set", tmp_path / "mended")
    assert pairs(found) == {"0.jpg": "mended/0.png"}
    assert [note for note in found.notes if "masks:" in note] == [
        f"masks: 1 of {tmp_path}/mended/ pair with 1 of {tmp_path}/set/"
    ]


def test_masks_elsewhere__are_part_of_the_fingerprint_but_not_where_all_lies(
    tmp_path: Path,
) -> None:
    for folder in ("here", "there"):
        write_files(tmp_path / folder, "photos/0.jpg", "truth/0.png", "other/0.png")
    here, there, other = (
        opened(tmp_path / folder / "photos", tmp_path / folder / masks).splits["train"].fingerprint
        for folder, masks in (("here", "truth"), ("there", "truth"), ("here", "other"))
    )
    assert here == there != other
    (tmp_path / "link").symlink_to(tmp_path / "here" / "photos")
    assert pairs(opened(tmp_path / "link", tmp_path / "here/truth")) == {"0.jpg": "truth/0.png"}


def test_masks_elsewhere__refuses(tmp_path: Path) -> None:
    write_files(tmp_path, "photos/0.jpg", "truth/x.png", "a.txt", "empty/readme.txt")
    for masks, message in (
        ("nowhere", r"^--masks .*nowhere is no folder$"),
        ("a.txt", r"a.txt is no folder"),
        (
            "empty",
            r"^--masks .*empty has no mask of an image of .*photos: it holds no PNG or .npy, ",
        ),
        ("photos", r"^--masks .*photos: no PNG or .npy there has the name of an image of another"),
        ("truth", r"it holds ../truth/x.png \(a mask without an image\), and an image is 0.jpg. G"),
    ):
        with pytest.raises(UserError, match=message):
            opened(tmp_path / "photos", tmp_path / masks)
    (tmp_path / "list.txt").write_text("photos/0.jpg\n")
    with pytest.raises(UserError, match=r"is for a folder of images, which .*list.txt is not"):
        opened(tmp_path / "list.txt", tmp_path / "truth")

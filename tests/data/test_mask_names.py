import pytest

from ssl_swin.data.sources.mask_names import (
    image_key,
    is_named_like_masks,
    partners,
    read_folder_name,
    split_mask_name,
)


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        ("0001_mask", ("0001", "mask")),
        ("0001.mask", ("0001", "mask")),
        ("a_b-Segmentation", ("a_b", "segmentation")),
        ("bonn_0_gtFine_labelIds", ("bonn_0", "labelids")),
        ("mask", None),
        ("_mask", None),
        ("unmask", None),
        ("mask_of_gold", None),
    ],
)
def test_split_mask_name(stem: str, found: tuple[str, str] | None) -> None:
    assert split_mask_name(stem) == found


def test_image_key() -> None:
    assert [image_key(stem) for stem in ("7_sat", "7_0000", "7_rgb", "7")] == ["7"] * 4


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("masks", True), ("SegmentationClass", True), ("1st_manual", True), ("trainannot", True),
     ("instances", True), ("images", False), ("masked_ball", False), ("train", False)],
)  # fmt: skip
def test_is_named_like_masks(name: str, is_one: bool) -> None:
    assert is_named_like_masks(name) == is_one


def test_read_folder_name__what_remains() -> None:
    assert read_folder_name("Training_GroundTruth").rest == {"train"}
    assert read_folder_name("train2017").rest == {"train", "2017"}
    assert read_folder_name("SegmentationObject").member == "segmentation_object"
    assert read_folder_name("masks").rank < read_folder_name("labels").rank
    images = read_folder_name("train_images")
    assert (images.is_of_images, images.beside_images) == (True, {"train"})


@pytest.mark.parametrize(
    ("masks", "images", "pairs"),
    [
        (["a", "b"], ["b", "c"], {"b": "b"}),
        (["a_mask", "b_mask"], ["a", "b", "c"], {"a": "a_mask", "b": "b_mask"}),
        (["a_L", "b_L"], ["a", "b"], {"a": "a_L", "b": "b_L"}),
        (["1"], ["1_0000", "1_0001"], {"1_0000": "1"}),
        (["12"], ["1"], {}),  # another number, not an ending
        (["x"], [], {}),
        ([], ["x"], {}),
    ],
)
def test_partners(masks: list[str], images: list[str], pairs: dict[str, str]) -> None:
    assert partners(masks, images) == pairs

import pytest

from ssl_swin.data.encoded import (
    EncodedSample,
    Member,
    file_extension,
    member_extension,
    member_names,
)
from ssl_swin.errors import UserError


@pytest.mark.parametrize(
    ("extensions", "members"),
    [
        (["jpg"], {"image": "jpg"}),
        (["cls", "jpg"], {"image": "jpg"}),
        (["jpg", "mask.png"], {"image": "jpg", "mask": "mask.png"}),
        (["seg.png", "jpg"], {"mask": "seg.png", "image": "jpg"}),
        (["jpg", "label_map.npy"], {"image": "jpg", "mask": "label_map.npy"}),
        (["png", "jpg", "json"], {"image": "png", "jpg": "jpg", "json": "json"}),
        (["jpg", "depth.left.npy"], {"image": "jpg", "depth.left": "depth.left.npy"}),
        (["image.jpg", "txt"], {"image": "image.jpg", "txt": "txt"}),
        (["txt", "cls", ""], {"txt": "txt"}),
    ],
)
def test_member_names(extensions: list[str], members: dict[str, str]) -> None:
    assert member_names(extensions) == members


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        (["jpg", "mask.png", "seg.png"], "two files for its member 'mask': mask.png and seg.png"),
        (["jpg", "image.png"], "two files for its member 'image': jpg and image.png"),
    ],
)
def test_member_names__one_member_twice(extensions: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        member_names(extensions)


@pytest.mark.parametrize("extension", ["jpg", "mask.png", "json", "depth.left.npy", "txt"])
def test_file_extension__is_the_inverse(extension: str) -> None:
    ((name, _),) = member_names([extension]).items()
    assert file_extension(name, Member(b"", member_extension(extension))) == extension


def test_encoded_sample__members() -> None:
    sample = EncodedSample.of_image(b"i", "png", 3, "x").with_member("mask", Member(b"m", "npy"))
    assert (sample.data, sample.extension, sample.label) == (b"i", "png", 3)
    assert sample.member("mask") == Member(b"m", "npy")
    assert sample.with_label(None).members == sample.members
    with pytest.raises(UserError, match=r"the sample x has no member 'json', only: image, mask"):
        sample.member("json")

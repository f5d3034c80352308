import pytest

from ssl_swin.data.split_names import split_in_name


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("imagenet1k-validation-00.tar", "val"),
        ("ILSVRC2012_img_VAL", "val"),
        ("data/train-00000-of-00041.parquet", "train"),
        ("test/train.parquet", "test"),  # the first word that is a split
        ("n01440764", None),
        ("trainer-0.tar", None),  # a whole word
        ("", None),
    ],
)
def test_split_in_name(name: str, split: str | None) -> None:
    assert split_in_name(name) == split

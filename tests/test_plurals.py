import pytest

from ssl_swin.plurals import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (3, "epoch", "3 epochs"),
        (2, "class", "2 classes"),
        (2, "batch", "2 batches"),
        (4, "training image", "4 training images"),
    ],
)
def test_counted(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text

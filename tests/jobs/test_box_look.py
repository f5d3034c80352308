"""What is said of boxes before a run."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.errors import UserError
from ssl_swin.jobs.box_look import look_at_boxes, object_masks
from ssl_swin.jobs.dense_classes import dense_classes

CLASSES = ("car", "dog", "cat")


class Listed(ImageDataset):
    """Samples of the given members `boxes`; of None the member is missing."""

    def __init__(self, contents: list[Any], classes: tuple[str, ...], label: int | None) -> None:
        self.contents = contents
        self.classes = classes
        self.label = label
        self.fingerprint = "0" * 16

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, index: int) -> EncodedSample:
        sample = EncodedSample.of_image(b"", "png", self.label, f"image_{index}")
        content = self.contents[index]
        if content is None:
            return sample
        return sample.with_member("boxes", Member(json.dumps(content).encode(), "json"))

    def file_name(self, index: int) -> str:
        return f"{index}.png"


def split(
    *contents: Any, classes: tuple[str, ...] = CLASSES, label: int | None = None
) -> IndexedSplit:
    dataset = Listed(list(contents), classes, label)
    return IndexedSplit(dataset, OrderConstants(block=1, pool=9, lanes=1))


def boxes(*labels: int, side_px: float = 9, **others: Any) -> dict[str, Any]:
    return {"boxes": [[1, 1, 1 + side_px, 1 + side_px]] * len(labels), "labels": labels, **others}


MASK = {"size": [1, 1], "counts": [1]}
MASKED = boxes(0, masks=[MASK])
EMPTY = boxes()


def test_look__tells_of_classes_that_are_nowhere_and_of_images_without_boxes(capsys) -> None:
    look_at_boxes("val", split(boxes(0, 0), EMPTY, EMPTY, None), CLASSES, with_masks=False)
    assert capsys.readouterr().out.splitlines() == [
        "note: 2 of 3 images of val that were looked at have no box, and count as background",
        "note: 3 images of val that were looked at have no box of class dog, cat",
    ]


def test_look__tells_what_is_left_out_of_training(capsys) -> None:
    crowds = boxes(0, 1, 2, crowd=[True, False, True])
    look_at_boxes("train", split(crowds, boxes(1, side_px=0.5)), CLASSES, with_masks=False)
    assert capsys.readouterr().out == (
        "note: 2 images of train that were looked at have 2 boxes around crowds and 1 below 1 px, "
        "which are not trained on\n"
    )
    look_at_boxes("val", split(crowds, boxes(1, side_px=0.5)), CLASSES, with_masks=False)
    assert capsys.readouterr().out == ""


def test_look__names_few_of_many_classes(capsys) -> None:
    look_at_boxes("val", split(boxes(7)), [str(n) for n in range(9)], with_masks=False)
    assert "no box of class 0, 1, 2, 3, 4 and 3 others" in capsys.readouterr().out


def test_look__looks_at_some_from_the_first_to_the_last() -> None:
    contents = [boxes(0)] * 999 + [boxes(5)]
    with pytest.raises(UserError, match=r"image_999 \(999.png\) have the label 5.*3 classes"):
        look_at_boxes("train", split(*contents), CLASSES, with_masks=False)


@pytest.mark.parametrize(
    ("contents", "with_masks", "message"),
    [
        ([boxes(0), boxes(3)], False, r"boxes of image_1 \(1.png\) have the label 3"),
        ([MASKED, boxes(1)], True, "image_1 .* have no masks.*task.with_masks=false"),
        ([EMPTY, EMPTY], False, "2 images of train that were looked at have no box"),
    ],
)
def test_look__refuses(contents, with_masks, message) -> None:
    with pytest.raises(UserError, match=message):
        look_at_boxes("train", split(*contents), CLASSES, with_masks=with_masks)


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        ([MASKED, boxes(0)], True),
        ([EMPTY, None, boxes(0), MASKED], False),
        ([EMPTY, MASKED], True),
    ],
)
def test_object_masks__are_told_by_the_first_image_with_objects(contents, told) -> None:
    assert object_masks(split(*contents)) is told


def test_object_masks__refuses_where_no_image_tells() -> None:
    with pytest.raises(
        UserError, match=r"no image with boxes was found: give task.with_masks=true"
    ):
        object_masks(split(EMPTY, None))
    stream: Any = SimpleNamespace(num_samples=9)
    with pytest.raises(UserError, match="a stream is not looked at"):
        object_masks(stream)


def test_classes__are_those_given_or_else_those_of_the_data() -> None:
    assert dense_classes(None, split(EMPTY), "boxes") == list(CLASSES)
    assert dense_classes(["a", "b"], split(EMPTY), "boxes") == ["a", "b"]
    assert dense_classes(3, split(EMPTY), "boxes") == ["0", "1", "2"]
    with pytest.raises(UserError, match=r"classes of its boxes: give classes=\[car,dog\]"):
        dense_classes(None, split(EMPTY, classes=()), "boxes")
    with pytest.raises(UserError, match=r"\(car, dog, cat\) are those of its images"):
        dense_classes(None, split(EMPTY, label=0), "boxes")

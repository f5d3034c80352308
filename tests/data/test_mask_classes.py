import json

import pytest
import torch

from ssl_swin.data.mask_classes import IGNORED, MaskClasses
from ssl_swin.errors import UserError


def read(masks, values, num_classes=3, dtype=torch.uint8):
    return masks.read(torch.tensor([values], dtype=dtype), num_classes, "train/a")[0].tolist()


def test_values__are_classes_and_255_is_left_out():
    assert read(MaskClasses(), [0, 2, 255, 1]) == [0, 2, IGNORED, 1]
    assert read(MaskClasses(ignore_value=None), [255, 0], num_classes=256) == [255, 0]
    assert read(MaskClasses(ignore_value=0), [0, 1, 2]) == [IGNORED, 1, 2]


def test_reduce_zero_label__counts_from_1_as_ade20k():
    masks = MaskClasses(reduce_zero_label=True)
    assert read(masks, [0, 1, 3, 255]) == [IGNORED, 0, 2, IGNORED]
    with pytest.raises(UserError, match="the value 4, and what is known is 1 to 3, and 0 for none"):
        read(masks, [4])


def test_values__of_a_table():
    masks = MaskClasses(class_of={0: 0, 255: 1}, ignore_value=128)
    assert read(masks, [255, 0, 128], num_classes=2) == [1, 0, IGNORED]
    assert read(MaskClasses(class_of={0: 0, 255: 1}, ignore_value=None), [255], 2) == [1]
    wide = MaskClasses(class_of={1000: 1, 65535: 0})
    assert read(wide, [65535, 1000], num_classes=2, dtype=torch.int64) == [0, 1]


def test_values__of_no_class_are_named():
    with pytest.raises(UserError) as caught:
        read(MaskClasses(), [0, 7, 3, 7, 255])
    assert str(caught.value).startswith(
        "the mask of train/a has the value 3, 7, and what is known is 0 to 2 and 255, left out"
    )
    with pytest.raises(UserError, match="3, 4, 5, 6, 7 and 2 others"):
        read(MaskClasses(), list(range(10)))
    with pytest.raises(UserError, match="the value -1, 70000"):
        read(MaskClasses(), [-1, 70000, 0], dtype=torch.int64)
    with pytest.raises(UserError, match="the value 1, and what is known is 0, 255"):
        read(MaskClasses(class_of={0: 0, 255: 1}, ignore_value=None), [1], num_classes=2)


def test_mask_classes__refuses_contradictions():
    with pytest.raises(UserError, match=r"masks.class_of .* masks.reduce_zero_label=true"):
        MaskClasses(class_of={0: 0}, reduce_zero_label=True)
    with pytest.raises(UserError, match="class_of names class 5, and there are 2 classes"):
        MaskClasses(class_of={0: 0, 1: 5}).check_classes(2)
    with pytest.raises(UserError, match="ignore_value must be"):
        MaskClasses(ignore_value=-1)


@pytest.mark.parametrize(
    "masks",
    [
        MaskClasses(),
        MaskClasses(ignore_value=None, reduce_zero_label=True),
        MaskClasses(class_of={0: 0, 255: 1}, ignore_value=9),
        MaskClasses(class_of_colour={"0-0-0": None, "1-2-3": 1}),
    ],
)
def test_settings__come_back_from_json(masks: MaskClasses) -> None:
    assert MaskClasses.of_settings(json.loads(json.dumps(masks.settings()))) == masks

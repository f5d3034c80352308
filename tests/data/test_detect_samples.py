import io
import json

import numpy as np
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from PIL import Image

from ssl_swin.data.detect_samples import DetectSample, DetectTransform, collate_detections
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.segment_views import WholeImage
from ssl_swin.data.transforms import Augmentation
from ssl_swin.errors import UserError

RLE = {"size": [4, 6], "counts": [4, 2, 2, 2, 14]}  # rows 0 and 1 of columns 1 and 2
NONE = {"size": [4, 6], "counts": [24]}
CONTENT = {
    "boxes": [[1, 0, 3, 2], [0, 0, 6, 4], [2, 1, 2.5, 4]],
    "labels": [2, 0, 1],
    "crowd": [False, True, False],
    "areas": [4, 20, 1.5],
    "masks": [RLE, NONE, NONE],
}


def encoded(**content):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 6), 7, dtype=np.uint8)).save(file, "png")
    boxes = Member(json.dumps(content).encode(), "json")
    return EncodedSample.of_image(file.getvalue(), "png", None, "a").with_member("boxes", boxes)


def transform(*, keep_crowd, with_masks=True, augmentation=None, num_classes=3):
    return DetectTransform(
        augmentation or WholeImage(),
        PixelFormat(1, "uint8"),
        seed=0,
        with_masks=with_masks,
        keep_crowd=keep_crowd,
        num_classes=num_classes,
    )


def test_transform__for_evaluation_is_what_is_stored():
    sample = transform(keep_crowd=True)(encoded(**CONTENT), 0)
    assert sample.boxes.tolist() == CONTENT["boxes"] and sample.labels.tolist() == [2, 0, 1]
    assert sample.crowd.tolist() == [False, True, False] and sample.areas.tolist() == [4, 20, 1.5]
    assert sample.masks.shape == (3, 4, 6) and sample.masks.dtype == torch.uint8
    assert sample.masks[0].nonzero().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert sample.pixels.eq(7).all() and sample.name == "a"


def test_transform__for_training_drops_crowds_and_boxes_below_one_pixel():
    sample = transform(keep_crowd=False)(encoded(**CONTENT), 0)
    assert sample.boxes.tolist() == [[1, 0, 3, 2]] and sample.labels.tolist() == [2]
    assert sample.masks.shape == (1, 4, 6) and sample.masks.sum() == 4
    assert sample.crowd.tolist() == [False] and sample.areas.tolist() == [4]


class Halved(Augmentation):
    def __call__(self, sample, generator):
        from torchvision.transforms.v2 import InterpolationMode

        from ssl_swin.data.geometry import resize

        height, width = sample.size_px
        return resize(sample, (height // 2, width // 2), InterpolationMode.BILINEAR)


def test_transform__measures_boxes_after_the_augmentation():
    content = {"boxes": [[0, 0, 2, 2], [0, 0, 1.9, 4]], "labels": [0, 1]}
    sample = transform(keep_crowd=False, with_masks=False, augmentation=Halved())(
        encoded(**content), 0
    )
    assert sample.boxes.tolist() == [[0, 0, 1, 1]] and sample.masks is None
    assert sample.areas.tolist() == [1] and sample.crowd.tolist() == [False]


def test_transform__areas_that_are_not_stored_are_of_masks_or_else_of_boxes():
    content = {"boxes": [[0, 0, 3, 3]], "labels": [0], "masks": [RLE]}
    assert transform(keep_crowd=True)(encoded(**content), 0).areas.tolist() == [4]
    alone = transform(keep_crowd=True, with_masks=False)(encoded(**content), 0)
    assert alone.areas.tolist() == [9] and alone.masks is None


def test_transform__an_image_without_boxes_stays():
    for with_masks in (False, True):
        make = transform(keep_crowd=False, with_masks=with_masks)
        sample = make(encoded(boxes=[], labels=[]), 0)
        assert sample.boxes.shape == (0, 4) and sample.labels.shape == (0,)
        assert sample.labels.dtype == torch.int64 and sample.areas.dtype == torch.float32
        assert (sample.masks.shape == (0, 4, 6)) if with_masks else sample.masks is None


def test_transform__refuses_a_label_that_is_no_class_and_missing_masks():
    content = {"boxes": [[0, 0, 3, 3]], "labels": [3]}
    with pytest.raises(UserError, match="boxes of a have the label 3, and there are 3 classes"):
        transform(keep_crowd=True)(encoded(**content), 0)
    with pytest.raises(UserError, match=r"boxes of a have no masks: set task\.with_masks=false"):
        transform(keep_crowd=True, num_classes=None)(encoded(**content), 0)


def example(height, width, number, dtype=torch.uint8, with_masks=True):
    return DetectSample(
        torch.full((2, height, width), 9).to(dtype),
        torch.ones(number, 4),
        torch.ones(number, dtype=torch.int64),
        torch.ones(number, height, width, dtype=torch.uint8) if with_masks else None,
        torch.zeros(number, dtype=torch.bool),
        torch.ones(number),
        f"{height} x {width}",
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_collate__fills_up_with_zeros_to_a_multiple(dtype):
    samples = [example(33, 20, 2, dtype), example(4, 64, 0, dtype)]
    batch = collate_detections(samples)
    assert batch.pixels.shape == (2, 2, 64, 64) and batch.pixels.dtype == dtype
    assert batch.sizes_px.tolist() == [[33, 20], [4, 64]]
    for image, sample in zip(batch.pixels.float(), samples, strict=True):
        height, width = sample.pixels.shape[1:]
        assert image[:, :height, :width].eq(9).all() and image.sum() == 9 * 2 * height * width
    assert [len(boxes) for boxes in batch.boxes] == [2, 0]
    assert [masks.shape for masks in batch.masks] == [(2, 33, 20), (0, 4, 64)]
    assert batch.names == ["33 x 20", "4 x 64"]
    assert collate_detections(samples, divisor_px=5).pixels.shape == (2, 2, 35, 65)
    assert collate_detections([example(4, 4, 1, with_masks=False)]).masks is None


def test_batch__moves_as_a_whole():
    batch = collate_detections([example(4, 4, 1), example(4, 4, 0)])
    moved = move_data_to_device(batch, "meta")
    assert type(moved) is type(batch) and moved.names == batch.names
    tensors = [moved.pixels, moved.sizes_px]
    for values in (moved.boxes, moved.labels, moved.masks, moved.crowd, moved.areas):
        tensors += values
    assert {tensor.device.type for tensor in tensors} == {"meta"} and len(tensors) == 12

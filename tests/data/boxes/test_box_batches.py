"""Batches of detection out of a folder: the same from loading processes, and after a resume."""

from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_swin.data.detect_samples import DetectTransform, collate_detections
from ssl_swin.data.detect_views import DetectAugmentation
from ssl_swin.data.images.pixel_format import PixelFormat
from ssl_swin.data.loading.exact import Cursor
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig

AUGMENTATION = DetectAugmentation(
    flip_probability=0.5,
    short_px=[16, 24, 32],
    long_px=64,
    crop_probability=0.5,
    crop_short_px=[16, 20],
    crop_px=(8, 16),
)


@pytest.fixture
def train(tmp_path, coco, text):
    """Eight images of noise with up to three objects each, with masks."""
    generator = np.random.default_rng(0)
    listed = {}
    for number in range(8):
        pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        rle = {"size": [20, 30], "counts": [100 + number, 200, 300 - number]}
        box = {"category_id": 3, "bbox": [5, 0, 11, 20], "area": 200, "segmentation": rle}
        listed[f"{number}.png"] = [box] * (number % 4)
    text("train.json", coco(listed))
    order = OrderConstants(block=1, pool=9, lanes=1)
    return open_splits(tmp_path, "coco", how_to_make="", order=order, members=("image", "boxes"))[
        "train"
    ]


def loader(train, num_workers):
    make_sample = DetectTransform(
        AUGMENTATION, PixelFormat(3, "uint8"), seed=3, with_masks=True, keep_crowd=False
    )
    config = LoaderConfig(batch_size=2, num_workers=num_workers, rank=0, world_size=1)
    return train.train_loader(make_sample, collate_detections, config, seed=3)


def flat(batch):
    fields = [batch.pixels, batch.sizes_px]
    for values in (batch.boxes, batch.labels, batch.masks, batch.crowd, batch.areas):
        fields += values
    return fields


def equal(one, other):
    return one.names == other.names and all(
        a.dtype == b.dtype and torch.equal(a, b)
        for a, b in zip(flat(one), flat(other), strict=True)
    )


def test_batches__are_the_same_from_a_loading_process_and_after_a_resume(train):
    here = loader(train, 0)
    batches = [*here, *here]  # two epochs
    assert len(batches) == 8 and sum(len(boxes) for b in batches for boxes in b.boxes) > 12
    assert all(side % 32 == 0 for batch in batches for side in batch.pixels.shape[2:])
    elsewhere = loader(train, 1)
    assert all(equal(a, b) for a, b in zip(elsewhere, batches[:4], strict=True))
    resumed = loader(train, 0)
    resumed.go_to(Cursor(1, 4))
    assert all(equal(a, b) for a, b in zip(islice(resumed, 2), batches[6:], strict=True))
    assert not equal(batches[0], batches[4])

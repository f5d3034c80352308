"""Shards of which some samples lack a member that a task asks for."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample, Member
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.opening import open_splits
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.packing.pack import pack
from ssl_swin.errors import UserError

ORDER = OrderConstants(block=4, pool=64, lanes=1)


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 3), level).save(file, "PNG")
    return file.getvalue()


class Partly(ImageDataset):
    """Image i has level i; those that are divided by 3 have no mask, and none has boxes but 1."""

    classes: tuple[str, ...] = ()
    fingerprint = "0" * 16
    members = ("image", "mask", "boxes")

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> EncodedSample:
        sample = EncodedSample.of_image(png(index), "png", None, str(index))
        if index % 3:
            sample = sample.with_member("mask", Member(png(0), "png"))
        if index == 1:
            sample = sample.with_member("boxes", Member(b'{"boxes": [], "labels": []}', "json"))
        return sample


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    pack({"train": Partly()}, tmp_path / "shards", shard_samples=2, num_workers=0, progress=False)
    return tmp_path / "shards"


def opened(shards: Path, *members: str) -> IndexedSplit:
    split = open_splits(
        shards, "indexed", how_to_make="", order=ORDER, members=("image", *members)
    )["train"]
    assert isinstance(split, IndexedSplit)
    return split


def levels(split: IndexedSplit) -> list[int]:
    dataset = split.dataset
    samples = [dataset[index] for index in range(len(dataset))]
    return sorted(int(np.asarray(Image.open(io.BytesIO(each.data)))[0, 0]) for each in samples)


def test_shards__samples_without_what_is_asked_for_are_left_out_and_counted(shards: Path) -> None:
    everything, masks, boxes = opened(shards), opened(shards, "mask"), opened(shards, "boxes")
    assert levels(everything) == list(range(9)) and everything.warning == ""
    assert levels(masks) == [1, 2, 4, 5, 7, 8] and levels(boxes) == [1]
    assert masks.warning == "left out: 3 images of train without mask"
    assert levels(opened(shards, "mask", "boxes")) == [1]


def test_shards__all_without_it_are_refused(tmp_path: Path) -> None:
    class Others(Partly):
        def __getitem__(self, index: int) -> EncodedSample:
            return EncodedSample.of_image(png(index), "png", None, str(index))

    sources = {"train": Partly(), "val": Others()}
    pack(sources, tmp_path / "shards", num_workers=0, progress=False)
    with pytest.raises(UserError, match=r"^no image of val has mask$"):
        opened(tmp_path / "shards", "mask")

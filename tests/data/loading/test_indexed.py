import numpy as np
import pytest

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.holding_out import hold_out
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.data.subset import Subset

BATCH_SIZE = 2
NUM_IMAGES = 23


class Numbers(ImageDataset):
    """Image i is the byte i, of class i // 8: sorted by class, as folders are."""

    classes = ("a", "b", "c")
    fingerprint = "numbers"

    def __init__(self, length: int = NUM_IMAGES) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EncodedSample:
        return EncodedSample.of_image(bytes([index]), "png", index // 8, str(index))


def number_and_epoch(record: EncodedSample, epoch: int) -> tuple[int, int]:
    return record.data[0], epoch


def eval_loader(batch_size: int, num_workers: int = 0, rank: int = 0, world_size: int = 1):
    config = LoaderConfig(batch_size, num_workers, rank, world_size)
    reader = IndexedSplit(Numbers(), OrderConstants(block=4, pool=16, lanes=1))
    return reader.eval_loader(number_and_epoch, list, config)


def test_train_loader__is_shuffled_over_the_whole_source():
    reader = IndexedSplit(Numbers(), OrderConstants(block=4, pool=16, lanes=1))
    loader = reader.train_loader(number_and_epoch, list, LoaderConfig(BATCH_SIZE, 0, 0, 1), seed=0)
    numbers = [number for batch in loader for number, _ in batch]
    assert len(set(numbers)) == len(numbers) == 22
    assert numbers != sorted(numbers)
    assert reader.summary() == "23 images"


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_eval_loader__every_image_once_over_all_ranks(world_size, num_workers):
    seen: list[int] = []
    for rank in range(world_size):
        loader = eval_loader(4, num_workers, rank, world_size)
        batches = list(loader)
        assert len(batches) == len(loader)
        assert [len(batch) for batch in batches[:-1]] == [4] * (len(batches) - 1)
        assert list(loader) == batches  # the same again
        seen += [number for batch in batches for number, _ in batch]
    assert sorted(seen) == list(range(NUM_IMAGES))


def test_eval_loader__the_first_images_are_of_all_classes():
    assert {number // 8 for number, _ in next(iter(eval_loader(9)))} == {0, 1, 2}


# Subset and hold_out


def test_source_part__is_a_selection():
    part = Subset(Numbers(), [20, 3])
    assert (len(part), part.classes) == (2, ("a", "b", "c"))
    assert [record.name for record in (part[0], part[1])] == ["20", "3"]
    with pytest.raises(IndexError):
        part[2]


@pytest.mark.parametrize(("val_ratio", "num_val"), [(0.1, 3), (0.5, 12), (1 / 23, 1), (0.001, 1)])
def test_hold_out__disjoint_exact_and_stable(val_ratio, num_val):
    numbers = {
        split: [part[i].data[0] for i in range(len(part))]
        for split, part in hold_out(Numbers(), val_ratio).items()
    }
    assert len(numbers["val"]) == num_val
    assert sorted(numbers["train"] + numbers["val"]) == list(range(NUM_IMAGES))
    again = hold_out(Numbers(), val_ratio)["val"]
    assert [again[i].data[0] for i in range(num_val)] == numbers["val"]


def test_hold_out__takes_from_everywhere():
    val = hold_out(Numbers(200), 0.25)["val"]
    counts = np.histogram([val[i].data[0] for i in range(len(val))], bins=4, range=(0, 200))[0]
    assert counts.sum() == 50 and counts.min() >= 6

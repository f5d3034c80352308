from collections import Counter
from itertools import chain

import numpy as np
import pytest

from ssl_swin.data.folder import SourcePart, SourceReader
from ssl_swin.data.loading import Placement
from ssl_swin.data.readers import hold_out
from ssl_swin.data.records import ImageRecord

BATCH_SIZE = 2
NUM_IMAGES = 23


class Numbers:
    """Image i is the byte i, of class i // 8: sorted by class, as folders are."""

    classes = ("a", "b", "c")
    fingerprint = "numbers"

    def __init__(self, length: int = NUM_IMAGES) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> ImageRecord:
        return ImageRecord(bytes([index]), "png", index // 8, str(index))


def number_and_epoch(record: ImageRecord, epoch: int) -> tuple[int, int]:
    return record.data[0], epoch


def train_batches(
    epoch: int, *, world_size: int = 1, num_workers: int = 0, seed: int = 0
) -> list[list[list[int]]]:
    """Image numbers by rank, batch and place; checks length and epoch on the way."""
    ranks = []
    for rank in range(world_size):
        placement = Placement(BATCH_SIZE, num_workers, rank, world_size)
        loader = SourceReader(Numbers()).train_loader(number_and_epoch, list, placement, seed=seed)
        loader.current_epoch = lambda: epoch
        batches = list(loader)
        assert len(batches) == len(loader)
        assert {e for batch in batches for _, e in batch} == {epoch}
        ranks.append([[number for number, _ in batch] for batch in batches])
    return ranks


def flat(nested: list[list[list[int]]]) -> list[int]:
    return [number for batches in nested for batch in batches for number in batch]


@pytest.mark.parametrize(("world_size", "num_batches"), [(1, 11), (2, 5), (3, 3)])
def test_train_loader__each_image_at_most_once_and_equal_batches(world_size, num_batches):
    ranks = train_batches(0, world_size=world_size)
    assert [[len(batch) for batch in batches] for batches in ranks] == [
        [BATCH_SIZE] * num_batches
    ] * world_size
    assert set(Counter(flat(ranks)).values()) == {1}


def test_train_loader__global_batches_do_not_depend_on_the_world_size():
    placements = [
        Placement(6 // world, 0, rank, world) for world in (1, 2, 3) for rank in range(world)
    ]
    loaders = [
        SourceReader(Numbers()).train_loader(number_and_epoch, list, placement, seed=0)
        for placement in placements
    ]
    alone, *others = [list(loader) for loader in loaders]
    for ranks in (others[:2], others[2:]):
        assert alone == [list(chain(*parts)) for parts in zip(*ranks, strict=True)]


def test_train_loader__new_order_each_epoch_and_seed():
    orders = [flat(train_batches(epoch, seed=seed)) for epoch in (0, 1, 2) for seed in (0, 1)]
    assert len({tuple(order) for order in orders}) == 6
    assert all(order != sorted(order) for order in orders)
    assert flat(train_batches(2, seed=1)) == orders[-1]
    assert len({frozenset(order) for order in orders}) > 1  # who is left out changes too


@pytest.mark.parametrize("world_size", [1, 2])
def test_train_loader__workers_do_not_change_the_order(world_size):
    without = train_batches(3, world_size=world_size)
    assert train_batches(3, world_size=world_size, num_workers=2) == without


def test_train_loader__persistent_workers_see_the_epoch_change():
    placement = Placement(BATCH_SIZE, 2, 0, 1)
    loader = SourceReader(Numbers()).train_loader(number_and_epoch, list, placement, seed=0)
    for epoch in (0, 1, 7):
        loader.current_epoch = lambda: epoch  # noqa: B023 (read within this turn of the loop)
        batches = [[number for number, _ in batch] for batch in loader]
        assert [batches] == train_batches(epoch)


def test_epoch_loader__reads_the_epoch_at_the_first_next():
    loader = SourceReader(Numbers()).train_loader(
        number_and_epoch, list, Placement(BATCH_SIZE, 0, 0, 1), seed=0
    )
    iterator = iter(loader)
    loader.current_epoch = lambda: 5  # known only now, as in a run that resumes
    assert [number for number, _ in next(iterator)] == train_batches(5)[0][0]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_eval_loader__every_image_once_over_all_ranks(world_size, num_workers):
    seen: list[int] = []
    for rank in range(world_size):
        placement = Placement(4, num_workers, rank, world_size)
        loader = SourceReader(Numbers()).eval_loader(number_and_epoch, list, placement)
        batches = list(loader)
        assert len(batches) == len(loader)
        assert [len(batch) for batch in batches[:-1]] == [4] * (len(batches) - 1)
        assert list(loader) == batches  # the same again
        seen += [number for batch in batches for number, _ in batch]
    assert sorted(seen) == list(range(NUM_IMAGES))


def test_eval_loader__the_first_images_are_of_all_classes():
    loader = SourceReader(Numbers()).eval_loader(number_and_epoch, list, Placement(9, 0, 0, 1))
    assert {number // 8 for number, _ in next(iter(loader))} == {0, 1, 2}


# SourcePart and hold_out


def test_source_part__is_a_selection():
    part = SourcePart(Numbers(), [20, 3])
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

import multiprocessing
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from ssl_swin.data.dataset import ImageDataset
from ssl_swin.data.encoded import EncodedSample
from ssl_swin.data.loading.exact import Cursor, ExactLoader
from ssl_swin.data.loading.indexed import IndexedSplit
from ssl_swin.data.loading.order import OrderConstants
from ssl_swin.data.loading.protocol import LoaderConfig
from ssl_swin.errors import UserError

NUM_IMAGES = 53
LENGTHS = np.array([10, 13, 30])
CONSTANTS = OrderConstants(block=4, pool=24, lanes=2)


class Numbers(ImageDataset):
    """Image i holds i, in shards of 10, 13 and 30; some cannot be read."""

    classes = ()
    fingerprint = "numbers"
    shard_lengths = LENGTHS

    def __init__(self, unreadable: tuple[int, ...] = ()) -> None:
        self.unreadable = unreadable

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> EncodedSample:
        if index in self.unreadable:
            raise OSError(f"disk fault\nat {index}")
        return EncodedSample.of_image(bytes([index]), "png", None, f"number {index}")


def number_and_epoch(record: EncodedSample, epoch: int) -> tuple[int, int]:
    return record.data[0], epoch


def open_loader(
    batch_size: int, rank: int = 0, world_size: int = 1, num_workers: int = 0, **options: Any
) -> ExactLoader:
    source = options.pop("source", Numbers())
    make_sample = options.pop("make_sample", number_and_epoch)
    config = LoaderConfig(batch_size, num_workers, rank, world_size)
    reader = IndexedSplit(source, CONSTANTS)
    return reader.train_loader(make_sample, list, config, seed=options.pop("seed", 5))


def take(loader: ExactLoader, num_batches: int) -> list[Any]:
    taken: list[Any] = []
    while len(taken) < num_batches:
        for batch in loader:
            taken.append(batch)
            if len(taken) == num_batches:
                break
    return taken


def global_batches(world_size: int, batch_size: int, num_batches: int, start: Cursor) -> list[Any]:
    """Batches over all ranks, put together in the order of positions."""
    ranks = []
    for rank in range(world_size):
        loader = open_loader(batch_size, rank, world_size)
        loader.go_to(start)
        ranks.append(take(loader, num_batches))
    dealt_out = (zip(*parts, strict=True) for parts in zip(*ranks, strict=True))
    return [[sample for group in groups for sample in group] for groups in dealt_out]


def test_iteration__a_pass_hands_out_each_image_at_most_once_and_in_another_order_each_time():
    loader = open_loader(6)
    first, second = list(loader), list(loader)
    assert len(first) == len(second) == len(loader) == 8  # 53 // 6
    for epoch, batches in enumerate((first, second)):
        samples = [sample for batch in batches for sample in batch]
        assert {e for _, e in samples} == {epoch}
        assert max(Counter(samples).values()) == 1
    assert [n for batch in first for n, _ in batch] != [n for batch in second for n, _ in batch]


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_iteration__goes_on_where_it_was_left(num_workers):
    whole = take(open_loader(6), 20)
    loader = open_loader(6, num_workers=num_workers)
    assert take(loader, 3) + take(loader, 4) + take(loader, 13) == whole


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 7, 8, 9, 16, 19])
def test_go_to__continues_as_if_nothing_had_happened(taken, num_workers):
    whole = take(open_loader(6), 24)
    before = open_loader(6, num_workers=num_workers)
    assert take(before, taken) == whole[:taken] if taken else before.cursor == (0, 0)
    after = open_loader(6, num_workers=num_workers)
    after.go_to(before.cursor)
    assert take(after, 24 - taken) == whole[taken:]


def test_place__is_on_the_next_epoch_before_the_last_batch_is_handed_out():
    loader = open_loader(6)
    places = [loader.cursor for _ in loader]
    assert places == [(0, 6 * n) for n in range(1, 8)] + [(1, 0)]


def test_iteration__starts_from_the_place_at_the_first_next():
    loader = open_loader(6)
    iterator = iter(loader)
    loader.go_to(Cursor(2, 12))  # only now, as in a run that Lightning restores
    assert next(iterator) == take(open_loader(6), 19)[18]


@pytest.mark.parametrize("start", [Cursor(0, 0), Cursor(1, 24)])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks__share_out_the_same_global_batches(world_size, start):
    alone = global_batches(1, 12, 6, start)
    assert global_batches(world_size, 12 // world_size, 6, start) == alone


def test_ranks__have_equally_many_batches():
    assert [len(open_loader(5, rank, 3)) for rank in range(3)] == [3, 3, 3]  # 53 // 15


def test_go_to__other_ranks_and_batch_size_continue_the_same_order():
    order = [n for batch in take(open_loader(1), NUM_IMAGES) for n, _ in batch]
    first = global_batches(1, 8, 3, Cursor(0, 0))  # 24 images
    rest = global_batches(2, 5, 2, Cursor(0, 24))  # 20 more
    assert [n for batch in first + rest for n, _ in batch] == order[:44]


def test_go_to__an_epoch_whose_rest_fills_no_batch_is_over():
    loader = open_loader(6)
    loader.go_to(Cursor(3, 48))
    assert loader.cursor == (4, 0)


def test_workers__end_and_start_anew_where_the_loader_is():
    whole = take(open_loader(6), 10)
    loader = open_loader(6, num_workers=2)
    assert take(loader, 4) == whole[:4]
    loader._iterator = None  # as Lightning does
    assert take(loader, 6) == whole[4:]
    del loader
    assert not multiprocessing.active_children()


def test_iteration__leaves_the_global_generators_alone():
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    take(open_loader(6), 10)
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


@pytest.mark.parametrize("world_size", [1, 2])
def test_fetch_ahead__what_is_needed_next_over_the_edge_of_an_epoch(world_size):
    """Two pools of 24 from a place on; each is told again when a quarter of a pool is done."""

    class Fetching(Numbers):
        fetches_ahead = True

        def __init__(self) -> None:
            super().__init__()
            self.told: list[list[int]] = []

        def fetch_ahead(self, indices: np.ndarray) -> None:
            self.told.append(indices.tolist())

    rank = world_size - 1
    source = Fetching()
    loader = open_loader(6 // world_size, rank, world_size, source=source)
    orders = [loader.batches.order(epoch).indices(np.arange(NUM_IMAGES)) for epoch in (0, 1)]
    take(loader, 3)  # at positions 0, 6 and 12
    assert source.told[0] == orders[0][rank:48:world_size].tolist()
    rest = orders[0][12 + rank :: world_size].tolist()
    assert source.told[-1] == rest + orders[1][rank : 12 + 48 - NUM_IMAGES : world_size].tolist()
    assert len(source.told) == 3


# Images that cannot be read


def without(unreadable: tuple[int, ...]) -> list[int]:
    """The order with every unreadable image replaced by the next readable one."""
    order = [n for batch in take(open_loader(1), NUM_IMAGES) for n, _ in batch]
    following = [order[(p + k) % NUM_IMAGES] for p in range(NUM_IMAGES) for k in range(NUM_IMAGES)]
    rows = np.array(following).reshape(NUM_IMAGES, NUM_IMAGES)
    return [next(n for n in row if n not in unreadable) for row in rows.tolist()]


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (1, 2), (3, 0)])
def test_bad_samples__give_way_to_the_next_of_the_order_and_are_reported(world_size, num_workers):
    unreadable = (0, 7, 31, 52)
    handed_out: dict[int, int] = {}
    reported = []
    for rank in range(world_size):
        loader = open_loader(
            6 // world_size, rank, world_size, num_workers, source=Numbers(unreadable)
        )
        for number, batch in enumerate(take(loader, 8)):
            places = range(number * 6 + rank, number * 6 + 6, world_size)
            handed_out |= {p: n for p, (n, _) in zip(places, batch, strict=True)}
        reported += loader.bad_samples
    assert [handed_out[p] for p in range(48)] == without(unreadable)[:48]
    assert {r for _, r in reported} <= {f"disk fault at {n}" for n in unreadable}
    assert len(reported) >= 3  # at most one of the four is among the five left out


def test_bad_samples__undecodable_ones_are_named():
    def refuse_seven(record: EncodedSample, epoch: int) -> tuple[int, int]:
        if record.data[0] == 7:
            raise ValueError("no image")
        return number_and_epoch(record, epoch)

    loader = open_loader(53, make_sample=refuse_seven)
    (batch,) = take(loader, 1)
    assert loader.bad_samples == [("number 7", "no image")]
    assert Counter(n for n, _ in batch).most_common(1)[0][1] == 2


def test_bad_samples__too_many_in_a_row_stop_the_run():
    loader = open_loader(4, source=Numbers(tuple(range(NUM_IMAGES))))
    with pytest.raises(UserError, match=r"16 images in a row cannot be read, the last is .*fault"):
        next(iter(loader))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_eval_loader__leaves_bad_samples_out(num_workers):
    reader = IndexedSplit(Numbers((3, 30)), CONSTANTS)
    loader = reader.eval_loader(number_and_epoch, list, LoaderConfig(8, num_workers, 0, 1))
    for number_of_passes in (1, 2):
        seen = [n for batch in loader for n, _ in batch]
        assert sorted(seen) == [n for n in range(NUM_IMAGES) if n not in (3, 30)]
        assert len(loader.bad_samples) == 2 * number_of_passes

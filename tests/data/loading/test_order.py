import numpy as np
import pytest

from ssl_swin.data.loading.order import OrderConstants, SampleOrder
from ssl_swin.data.rng import keyed_permutation
from ssl_swin.errors import UserError


def listing(order: SampleOrder) -> list[int]:
    return order.indices(np.arange(len(order))).tolist()


def slow_listing(lengths: list[int], constants: OrderConstants, seed: int, epoch: int) -> list[int]:
    """The three steps of the module's description, one sample at a time."""
    blocks, first = [], 0
    for length in lengths:
        shard = list(range(first, first + length))
        step = constants.block or max(lengths)
        blocks += [shard[i : i + step] for i in range(0, length, step)]
        first += length
    line = [s for b in keyed_permutation(len(blocks), seed, epoch, "blocks") for s in blocks[b]]
    lane_length = len(line) // constants.lanes
    lanes = [line[i * lane_length : (i + 1) * lane_length] for i in range(constants.lanes)]
    lanes.append(line[constants.lanes * lane_length :])
    window_length = max(1, constants.pool // constants.lanes)
    for number, lane in enumerate(lanes):
        for window, start in enumerate(range(0, len(lane), window_length)):
            part = lane[start : start + window_length]
            shuffled = keyed_permutation(len(part), seed, epoch, "window", number, window)
            lane[start : start + window_length] = [part[i] for i in shuffled]
    return [lane[place] for place in range(lane_length) for lane in lanes[:-1]] + lanes[-1]


def random_cases() -> list[tuple[list[int], OrderConstants]]:
    draw = np.random.default_rng(0)
    cases = [([0, 7, 0], OrderConstants(None, 3, 2)), ([1], OrderConstants(1, 1, 9))]
    for _ in range(60):
        lengths = [int(n) for n in draw.integers(0, 40, size=draw.integers(1, 20))] + [1]
        block = None if draw.random() < 0.2 else int(draw.integers(1, 20))
        pool, lanes = int(draw.integers(1, 400)), int(draw.integers(1, 20))
        cases.append((lengths, OrderConstants(block, pool, lanes)))
    return cases


@pytest.mark.parametrize(("lengths", "constants"), random_cases())
def test_samples__bijection_equal_to_the_description_from_anywhere(lengths, constants):
    order = SampleOrder(np.array(lengths), constants, seed=3, epoch=4)
    whole = slow_listing(lengths, constants, seed=3, epoch=4)
    assert sorted(whole) == list(range(sum(lengths)))
    assert listing(order) == whole
    positions = np.random.default_rng(1).integers(0, len(order), size=50)
    afresh = SampleOrder(np.array(lengths), constants, seed=3, epoch=4)
    assert afresh.indices(positions).tolist() == [whole[p] for p in positions]


def test_samples__of_this_algorithm_for_good():
    """Checkpoints hold positions: a change here would send old runs elsewhere."""
    order = SampleOrder(np.array([7, 5]), OrderConstants(2, 6, 2), seed=0, epoch=0)
    assert listing(order) == [9, 11, 5, 1, 4, 0, 7, 2, 10, 6, 8, 3]


def test_samples__every_epoch_and_seed_has_its_own():
    orders = {
        tuple(listing(SampleOrder(np.array([500]), OrderConstants(4, 64, 2), seed=s, epoch=e)))
        for s in range(3)
        for e in range(3)
    }
    assert len(orders) == 9


def test_samples__a_set_within_one_window_is_shuffled_as_a_whole():
    """Over many epochs every sample is as likely at every place: 30 x 30 counts around 100."""
    counts = np.zeros((30, 30))
    for epoch in range(3000):
        order = SampleOrder(np.array([10, 20]), OrderConstants(4, 64, 1), seed=0, epoch=epoch)
        counts[np.arange(30), order.indices(np.arange(30))] += 1
    chi_square = ((counts - 100) ** 2 / 100).sum()  # 841 degrees of freedom, deviation 41
    assert 841 - 4 * 41 < chi_square < 841 + 4 * 41


def test_samples__a_lane_needs_only_its_part_of_the_shards():
    lengths = np.full(64, 50)
    order = SampleOrder(lengths, OrderConstants(None, 400, 8), seed=0, epoch=0)
    needed = [set((order.indices(np.arange(lane, 3200, 8)) // 50).tolist()) for lane in range(8)]
    assert sum(map(len, needed)) == 64  # 8 whole shards a lane, none twice


def test_samples__neighbours_of_a_block_stay_within_a_window():
    order = SampleOrder(np.full(10, 100), OrderConstants(50, 200, 1), seed=0, epoch=0)
    place = np.argsort(listing(order)) // 200
    assert all(len(set(block)) == 1 for block in place.reshape(20, 50))


@pytest.mark.parametrize("name", ["block", "pool", "lanes"])
def test_order_constants__at_least_one(name):
    with pytest.raises(UserError, match=rf"{name} must be a whole number of at least 1.*, got 0"):
        OrderConstants(**{"block": 1, "pool": 1, "lanes": 1, name: 0})

import numpy as np
import pytest

from ssl_swin.encoders.windows.binning import pack_groups


def test_pack_groups__by_hand():
    starts, bins = pack_groups(np.array([2, 3, 0, 3, 2, 2]), bin_size=5)
    # Two bins of 3 + 2, one of 2; groups of a size are taken in their order.
    assert bins == 3
    assert starts.tolist() == [3, 0, 0, 5, 8, 10]


def test_pack_groups__several_small_ones_share_what_a_large_one_leaves():
    starts, bins = pack_groups(np.array([1, 6, 1, 1, 1]), bin_size=8)
    assert bins == 2
    assert starts.tolist() == [6, 0, 7, 8, 9]


def test_pack_groups__nothing_to_pack():
    starts, bins = pack_groups(np.zeros(3, np.int64), bin_size=4)
    assert (starts.tolist(), bins) == ([0, 0, 0], 0)


@pytest.mark.parametrize("seed", range(20))
def test_pack_groups__groups_are_apart_and_each_within_one_bin(seed):
    generator = np.random.default_rng(seed)
    bin_size = int(generator.integers(4, 40))
    sizes = generator.integers(0, bin_size + 1, size=200)

    starts, bins = pack_groups(sizes, bin_size)

    slots = [start + i for start, size in zip(starts, sizes, strict=True) for i in range(size)]
    assert len(set(slots)) == sizes.sum()
    assert max(slots) < bins * bin_size
    filled = sizes > 0
    ends = starts + sizes - 1
    assert (starts[filled] // bin_size == ends[filled] // bin_size).all()
    assert bins <= np.ceil(1.5 * sizes.sum() / bin_size) + 1  # first fit decreasing is below 11/9

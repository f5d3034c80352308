"""In which order a run sees its samples.

The order is a pure function of the shards' lengths, a seed, the epoch and three constants. It knows
nothing of processes, workers or batch sizes, so a run may go on with others of those. For an epoch:

1. Each shard is cut into blocks of adjacent samples. The blocks, shuffled, form a line.
2. The line is cut into lanes of equal length, and each lane into windows; windows are shuffled.
3. Position p of the order is the next sample of lane `p % lanes`.

A set that fits into one window is thus shuffled as a whole. Lanes matter where several machines
fetch shards: a machine that takes the same lanes all the time needs only their shards.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.rng import keyed_permutation
from ssl_swin.errors import UserError

Samples = NDArray[np.int64]


@dataclass(frozen=True)
class OrderConstants:
    """How far apart neighbours end up, and how much must be at hand to get there."""

    block: int | None  # adjacent samples that stay together up to the windows; None: whole shards
    pool: int  # samples that are shuffled among each other at a time, in all lanes together
    lanes: int

    def __post_init__(self) -> None:
        for name in ("block", "pool", "lanes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"data.order.{name} must be at least 1, got {value}")


class SampleOrder:
    """The order of one epoch: a bijection from positions to samples, entered anywhere."""

    def __init__(
        self, shard_lengths: Samples, constants: OrderConstants, *, seed: int, epoch: int
    ) -> None:
        """Shuffles the blocks; windows are shuffled when they are first asked for.

        Args:
            shard_lengths: int64 (shards,), samples in each.
            constants: Of the run.
            seed: Of the run.
            epoch: Counted from 0.
        """
        self.num_samples = int(shard_lengths.sum())
        self._key = (seed, epoch)
        starts, lengths = _blocks(shard_lengths, constants.block)
        shuffled = keyed_permutation(len(starts), *self._key, "blocks")
        self._block_starts = starts[shuffled]
        self._block_places = np.concatenate([[0], np.cumsum(lengths[shuffled])])
        self._lanes = constants.lanes
        self._lane_length = self.num_samples // constants.lanes
        self._window_length = max(1, constants.pool // constants.lanes)
        self._windows: OrderedDict[tuple[int, int], Samples] = OrderedDict()

    def __len__(self) -> int:
        return self.num_samples

    def samples(self, positions: Samples) -> Samples:
        """Gives the samples at some positions in [0, num_samples), int64 of the same length."""
        place, lane = np.divmod(positions, self._lanes)
        is_rest = place >= self._lane_length  # what equal lanes leave over is a lane of its own
        lane[is_rest] = self._lanes
        place[is_rest] = positions[is_rest] - self._lanes * self._lane_length
        window, offset = np.divmod(place, self._window_length)
        found = np.empty_like(positions)
        for key in sorted(set(zip(lane.tolist(), window.tolist(), strict=True))):
            here = (lane == key[0]) & (window == key[1])
            found[here] = self._window(*key)[offset[here]]
        return found

    def _window(self, lane: int, window: int) -> Samples:
        """Shuffles a window, or finds it among the latest two of each lane."""
        if (lane, window) not in self._windows:
            first = lane * self._lane_length + window * self._window_length
            is_rest = lane == self._lanes
            end = self.num_samples if is_rest else (lane + 1) * self._lane_length
            line = self._line(first, min(first + self._window_length, end))
            shuffled = keyed_permutation(len(line), *self._key, "window", lane, window)
            self._windows[lane, window] = line[shuffled]
            if len(self._windows) > 2 * (self._lanes + 1):
                self._windows.popitem(last=False)
        self._windows.move_to_end((lane, window))
        return self._windows[lane, window]

    def _line(self, start: int, stop: int) -> Samples:
        """Gives the samples on places [start, stop) of the line of blocks."""
        places = np.arange(start, stop, dtype=np.int64)
        block = np.searchsorted(self._block_places, places, side="right") - 1
        line: Samples = self._block_starts[block] + places - self._block_places[block]
        return line


def _blocks(shard_lengths: Samples, block: int | None) -> tuple[Samples, Samples]:
    """First sample and length of each block, in the order of the shards."""
    if block is None:
        block = max(1, int(shard_lengths.max(initial=1)))
    ends = np.cumsum(shard_lengths)
    per_shard = -(-shard_lengths // block)
    shard = np.repeat(np.arange(len(shard_lengths)), per_shard)
    first_block = np.concatenate([[0], np.cumsum(per_shard)])[:-1]
    number = np.arange(len(shard)) - first_block[shard]
    starts = (ends - shard_lengths)[shard] + number * block
    return starts, np.minimum(block, ends[shard] - starts)

"""The order in which a run sees its samples.

The order is a pure function of the shards' lengths, a seed, the epoch and three constants. It
depends on no process, worker or batch size, so a run may continue with others of those. For an
epoch:

1. Each shard is cut into blocks of adjacent samples. The blocks, shuffled, form a line.
2. The line is cut into streams of equal length, each stream into windows; windows are shuffled.
3. Position p of the order is the next sample of stream `p % lanes`.

A set that fits into one window is thus shuffled as a whole. Several streams matter where several
machines fetch shards: a machine that takes the same streams all the time needs only their shards.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from ssl_swin.arguments import Positive, checked
from ssl_swin.data.dataset import Indices
from ssl_swin.data.rng import keyed_permutation


@checked
@dataclass(frozen=True)
class OrderConstants:
    """Constants of the order, under the names of the configuration and of checkpoints.

    Attributes:
        block: Number of adjacent samples that stay together until windows are shuffled; None
            keeps whole shards together.
        pool: Size of the shuffle buffer: samples shuffled at a time, in all streams together.
        lanes: Number of streams.
    """

    block: Positive | None
    pool: Positive
    lanes: Positive


class SampleOrder:
    """The order of one epoch: a bijection from positions to samples, entered anywhere."""

    def __init__(
        self, shard_lengths: Indices, constants: OrderConstants, *, seed: int, epoch: int
    ) -> None:
        """Shuffle the blocks; windows are shuffled when they are first asked for.

        Args:
            shard_lengths: Number of samples in each shard, int64 (shards,).
            constants: Constants of the order, fixed for the run.
            seed: Seed of the order, fixed for the run.
            epoch: Number of the epoch, counted from 0.
        """
        self.num_samples = int(shard_lengths.sum())
        self._key = (seed, epoch)
        starts, lengths = _blocks(shard_lengths, constants.block)
        shuffled = keyed_permutation(len(starts), *self._key, "blocks")
        self._block_starts = starts[shuffled]
        self._block_offsets = np.concatenate([[0], np.cumsum(lengths[shuffled])])
        self._num_streams = constants.lanes
        self._stream_length = self.num_samples // constants.lanes
        self._window_length = max(1, constants.pool // constants.lanes)
        self._windows: OrderedDict[tuple[int, int], Indices] = OrderedDict()

    def __len__(self) -> int:
        return self.num_samples

    def indices(self, positions: Indices) -> Indices:
        """Return the samples at some positions in [0, num_samples), int64 of the same length."""
        offset, stream = np.divmod(positions, self._num_streams)
        is_rest = offset >= self._stream_length  # what equal streams leave over is one of its own
        stream[is_rest] = self._num_streams
        offset[is_rest] = positions[is_rest] - self._num_streams * self._stream_length
        window, offset = np.divmod(offset, self._window_length)
        found = np.empty_like(positions)
        for key in sorted(set(zip(stream.tolist(), window.tolist(), strict=True))):
            here = (stream == key[0]) & (window == key[1])
            found[here] = self._window(*key)[offset[here]]
        return found

    def _window(self, stream: int, window: int) -> Indices:
        """Shuffle a window, or take it from the latest two of each stream."""
        if (stream, window) not in self._windows:
            first = stream * self._stream_length + window * self._window_length
            is_rest = stream == self._num_streams
            end = self.num_samples if is_rest else (stream + 1) * self._stream_length
            line = self._line(first, min(first + self._window_length, end))
            shuffled = keyed_permutation(len(line), *self._key, "window", stream, window)
            self._windows[stream, window] = line[shuffled]
            if len(self._windows) > 2 * (self._num_streams + 1):
                self._windows.popitem(last=False)
        self._windows.move_to_end((stream, window))
        return self._windows[stream, window]

    def _line(self, start: int, stop: int) -> Indices:
        """Return the samples at offsets [start, stop) in the line of blocks."""
        offsets = np.arange(start, stop, dtype=np.int64)
        block = np.searchsorted(self._block_offsets, offsets, side="right") - 1
        line: Indices = self._block_starts[block] + offsets - self._block_offsets[block]
        return line


def _blocks(shard_lengths: Indices, block: int | None) -> tuple[Indices, Indices]:
    """Return the first sample and the length of each block, in the order of the shards."""
    if block is None:
        block = max(1, int(shard_lengths.max(initial=1)))
    ends = np.cumsum(shard_lengths)
    per_shard = -(-shard_lengths // block)
    shard = np.repeat(np.arange(len(shard_lengths)), per_shard)
    first_block = np.concatenate([[0], np.cumsum(per_shard)])[:-1]
    number = np.arange(len(shard)) - first_block[shard]
    starts = (ends - shard_lengths)[shard] + number * block
    return starts, np.minimum(block, ends[shard] - starts)

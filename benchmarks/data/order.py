"""What the constants of the sample order buy: mixing, fetches, and time to compute.

python -m benchmarks.data.order

Mixing is measured on the worst case, shards packed class by class: how many of 1,000 classes a
batch holds. Fetches count how often a shard is brought to a machine during one epoch, when each
machine's cache holds few of them. No images are read.
"""

import argparse
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ssl_swin.data.loading.order import OrderConstants, SampleOrder

NUM_CLASSES = 1000
CLASS_SAMPLES = 1281
SHARD_SAMPLES = 1000
RANK_BATCH, WORLD_SIZE = 128, 16
GLOBAL_BATCH = RANK_BATCH * WORLD_SIZE

SamplesAt = Callable[[NDArray[np.int64]], NDArray[np.int64]]
SETTINGS = {
    "local (default)": OrderConstants(block=64, pool=262144, lanes=1),
    "local, 64 lanes": OrderConstants(block=64, pool=262144, lanes=64),
    "whole shards, 64 lanes": OrderConstants(block=None, pool=262144, lanes=64),
    "remote (default)": OrderConstants(block=None, pool=32768, lanes=64),
}


def imagenet_order(constants: OrderConstants) -> SampleOrder:
    """The order of a set of ImageNet-1k's size, sorted by class, in shards of 1,000."""
    num_shards, rest = divmod(NUM_CLASSES * CLASS_SAMPLES, SHARD_SAMPLES)
    lengths = np.array([SHARD_SAMPLES] * num_shards + [rest])
    return SampleOrder(lengths[lengths > 0], constants, seed=0, epoch=0)


def classes_in_batches(samples_of: SamplesAt, num_batches: int = 20) -> tuple[float, float]:
    """Mean number of classes in a rank's batch and in a global batch."""
    starts = np.linspace(0, NUM_CLASSES * CLASS_SAMPLES - GLOBAL_BATCH, num_batches).astype(int)
    batches = [samples_of(np.arange(s, s + GLOBAL_BATCH)) // CLASS_SAMPLES for s in starts]
    of_ranks = [len(set(batch[r::WORLD_SIZE])) for batch in batches for r in range(WORLD_SIZE)]
    return statistics.mean(of_ranks), statistics.mean(len(set(batch)) for batch in batches)


def fetches_per_shard(order: SampleOrder, num_nodes: int, cached_shards: int) -> float:
    """Fetches of all nodes in an epoch over the number of shards."""
    ranks_per_node = WORLD_SIZE // num_nodes
    caches: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(num_nodes)]
    fetches = 0
    for start in range(0, len(order) - GLOBAL_BATCH, GLOBAL_BATCH):
        shards = order.indices(np.arange(start, start + GLOBAL_BATCH)) // SHARD_SAMPLES
        for node, cache in enumerate(caches):
            first = node * ranks_per_node
            ranks = range(first, first + ranks_per_node)
            for shard in np.unique(np.concatenate([shards[r::WORLD_SIZE] for r in ranks])).tolist():
                fetches += shard not in cache
                cache[shard] = None
                cache.move_to_end(shard)
                if len(cache) > cached_shards:
                    cache.popitem(last=False)
    return fetches / -(-len(order) // SHARD_SAMPLES)


def milliseconds(constants: OrderConstants) -> tuple[float, float, float]:
    """Time to set up an epoch of 14 million samples, for its first batch, and for a later one."""
    lengths = np.full(14198, SHARD_SAMPLES)
    start = time.perf_counter()
    order = SampleOrder(lengths, constants, seed=0, epoch=0)
    ready = time.perf_counter()
    order.indices(np.arange(7_000_000, 7_000_000 + GLOBAL_BATCH))
    first = time.perf_counter()
    order.indices(np.arange(7_000_000 + GLOBAL_BATCH, 7_000_000 + 2 * GLOBAL_BATCH))
    later = time.perf_counter()
    return 1e3 * (ready - start), 1e3 * (first - ready), 1e3 * (later - first)


def main() -> None:
    """Prints the tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    draw = np.random.default_rng(0)

    def random_samples(positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return draw.integers(0, NUM_CLASSES * CLASS_SAMPLES, len(positions))

    print(f"classes in a rank's batch of {RANK_BATCH} and in a global batch of {GLOBAL_BATCH}")
    rank, whole = classes_in_batches(random_samples)
    print(f"  {'independent draws':24} {rank:6.1f} {whole:7.1f}")
    for name, constants in SETTINGS.items():
        rank, whole = classes_in_batches(imagenet_order(constants).samples)
        print(f"  {name:24} {rank:6.1f} {whole:7.1f}   {constants}")
    print("fetches per shard and epoch over all nodes, caches of 160 shards")
    for nodes in (1, 2, 4):
        counts = [
            f"{name}: {fetches_per_shard(imagenet_order(SETTINGS[name]), nodes, 160):.2f}"
            for name in ("local (default)", "remote (default)")
        ]
        print(f"  {nodes} node(s): " + ", ".join(counts))
    print("milliseconds for 14,198,000 samples: epoch, first batch of 2,048, a later one")
    for name, constants in SETTINGS.items():
        epoch, first, later = milliseconds(constants)
        print(f"  {name:24} {epoch:6.1f} {first:6.1f} {later:6.2f}")


if __name__ == "__main__":
    main()

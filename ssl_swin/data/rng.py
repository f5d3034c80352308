"""Randomness of one sample as a function of what the sample is.

Crops, flips and masks are drawn from a generator keyed by (seed, epoch, sample name). They do not
depend on workers, ranks, batch size, or on what was drawn before.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray


def keyed_generator(*key: int | str) -> np.random.Generator:
    """Return the random stream that belongs to a key; equal keys give equal streams."""
    return np.random.Generator(_bits(*key))


def keyed_permutation(length: int, *key: int | str) -> NDArray[np.int64]:
    """Return the permutation of [0, length) that belongs to a key.

    It sorts raw words of the Philox counter, whose stream numpy guarantees for good; that of
    `Generator.permutation` may change with numpy's version (NEP 19).
    """
    return np.argsort(_bits(*key).random_raw(length), kind="stable")


def _bits(*key: int | str) -> np.random.Philox:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Philox(key=int.from_bytes(digest, "little"))


def seed_globals(generator: np.random.Generator) -> None:
    """Seed Python's, numpy's and all of torch's global generators, those of devices too."""
    seed = int(generator.integers(2**32))
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded_globals(generator: np.random.Generator) -> Iterator[None]:
    """Seed the global generators for code that draws from them, and restore them afterwards.

    timm's and torchvision's augmentations draw from `random`, `numpy.random` and torch at once. Of
    torch's generators this is the CPU's alone: `torch.manual_seed` would reset the GPU's for good.
    """
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = int(generator.integers(2**32))
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(pytorch)

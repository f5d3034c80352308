import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ssl_swin.encoders.swin import SwinEncoder, swin

TINY: dict[str, Any] = {
    "img_size_px": 64,
    "window_size": 4,
    "embed_dim": 8,
    "depths": (2, 1, 2, 1),
    "num_heads": (1, 2, 2, 4),
}


def pytest_collection_finish() -> None:
    """Take what imports and collection have made, which stays, out of the garbage collector.

    It walks over some million objects of torch and the tests again and again otherwise: a third of
    the time of composing a configuration.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let the end of the process free what it would free; extensions complain of leaks else."""
    gc.unfreeze()


@pytest.fixture
def tiny_encoder() -> Callable[..., SwinEncoder]:
    """Builds a Swin of 64 px and stride 32 in eval mode; arguments of `swin` may be changed.

    Every weight is disturbed: V2 starts with blocks that are the identity, so that a test on fresh
    weights would see neither attention nor windows.
    """

    def build(*, version: int = 1, seed: int = 0, **changes: Any) -> SwinEncoder:
        torch.manual_seed(seed)
        encoder = swin(version=version, **(TINY | changes))
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return encoder.eval()

    return build

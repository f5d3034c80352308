"""Times of variants taken in turn, their medians and ratios, and the machine's own rate."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch

SQUARE = {"cpu": 1024, "cuda": 8192}  # side of the matrices whose product gives the rate
PRODUCTS = 10  # in a call
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Spread(NamedTuple):
    """Median and range of measurements."""

    median: float
    lowest: float
    highest: float


def spread(values: Sequence[float]) -> Spread:
    """Summarises measurements of one thing."""
    return Spread(statistics.median(values), min(values), max(values))


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_s(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, until the device has finished it."""
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def alternate(
    calls: Mapping[str, Callable[[int], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Times calls in turn, A B C A B C, so that a drift of the machine meets all alike.

    Args:
        calls: By name; each gets the number of the round.
        rounds: How often each is timed.
        device: To wait for.

    Returns:
        Seconds of every round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name, call in calls.items():
            seconds[name].append(time_s(partial(call, number), device))
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]], reference: str) -> dict[str, float]:
    """Returns how many times as fast as the reference each is: the median of the rounds' ratios."""
    return {
        name: statistics.median(
            theirs / ours for theirs, ours in zip(seconds[reference], values, strict=True)
        )
        for name, values in seconds.items()
    }


class Product:
    """A large square matrix product, whose rate is the machine's own measure."""

    def __init__(self, precision: str, device: torch.device) -> None:
        """Makes its matrices.

        Args:
            precision: "fp32", "bf16" or "fp16".
            device: Where to multiply.
        """
        side = SQUARE[device.type]
        self.flops = 2 * side**3
        self._matrices = torch.randn(2, side, side, device=device, dtype=DTYPES[precision])

    def __call__(self) -> None:
        """Multiplies."""
        for _ in range(PRODUCTS):
            torch.mm(*self._matrices)

    def rate(self, seconds: Sequence[float]) -> float:
        """Operations per second in the fastest of several calls: other load only slows them."""
        return PRODUCTS * self.flops / min(seconds)

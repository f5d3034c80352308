"""What a training step costs here, measured on a few real ones."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

NUM_WARMUP_STEPS = 2
MAX_STEPS = 10
MAX_S = 20.0


class StepCost(NamedTuple):
    """What training steps on one device cost."""

    step_s: float  # with waiting for data
    data_wait_ratio: float  # share of it that waits for data
    num_steps: int  # measured ones
    flops_per_image: float | None  # of matrix products and convolutions, forward and backward
    kept_bytes_per_image: float  # what the forward pass keeps for the backward pass
    state_bytes: int  # parameters, buffers and optimiser: what a checkpoint holds
    fixed_bytes: int  # the same and gradients: in memory whatever the batch
    peak_bytes: int | None  # of a GPU's memory


def measure_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Any], Tensor],
    next_batch: Callable[[], Any],
    *,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[Any]],
    counts_flops: bool = True,
) -> StepCost:
    """Train for a few steps; the model's weights change.

    Args:
        model: On the device, in training mode.
        optimizer: Of the model's parameters.
        loss: Computes the loss of a batch.
        next_batch: Returns a batch on the device.
        device: Where the steps are done.
        precision: Makes the context of the forward pass.
        counts_flops: False where kernels are compiled, which cannot be counted.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def step(batch: Any) -> None:
        with precision():
            value = loss(batch)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    batch = next_batch()
    num_images = len(batch.names)
    flops = _flops(lambda: step(batch)) / num_images if counts_flops else None
    with precision():
        kept = _kept_bytes(model, lambda: loss(batch)) / num_images
    for _ in range(NUM_WARMUP_STEPS):
        step(next_batch())
    step_s, waited_s, number = _timed(step, next_batch, device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    state = sum(map(_bytes, [*model.state_dict().values(), *_tensors(optimizer.state_dict())]))
    return StepCost(
        step_s=step_s,
        data_wait_ratio=waited_s / step_s,
        num_steps=number,
        flops_per_image=flops,
        kept_bytes_per_image=kept,
        state_bytes=state,
        fixed_bytes=state + sum(map(_bytes, parameters)),
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def _timed(
    step: Callable[[Any], None], next_batch: Callable[[], Any], device: torch.device
) -> tuple[float, float, int]:
    """Return the mean seconds of a step, those of them that it waited for data, and the number."""
    _synchronise(device)
    started, waited_s, number = time.perf_counter(), 0.0, 0
    while number < MAX_STEPS and (not number or time.perf_counter() - started < MAX_S):
        asked = time.perf_counter()
        batch = next_batch()
        waited_s += time.perf_counter() - asked
        step(batch)
        number += 1
    _synchronise(device)
    return (time.perf_counter() - started) / number, waited_s / number, number


def _flops(step: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def _kept_bytes(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Return the bytes that a forward pass keeps, each storage once and no parameter."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = forward()
        total = sum(kept.values())
    del loss
    return total


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _tensors(value)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

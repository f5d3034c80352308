"""What a training step costs here, measured on a few real ones."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ssl_swin.training.live_memory import LiveBytes, tensors_in

NUM_WARMUP_STEPS = 2
MAX_STEPS = 10
MAX_S = 20.0


class StepCost(NamedTuple):
    """What training steps on one device cost."""

    step_s: float  # with waiting for data
    data_wait_ratio: float  # share of it that waits for data
    num_steps: int  # measured ones
    batch_size: int  # images of a step
    flops_per_image: float | None  # of matrix products and convolutions, forward and backward
    kept_bytes_per_image: float  # what the forward pass keeps for the backward pass
    state_bytes: int  # parameters, buffers and optimiser: what a checkpoint holds
    fixed_bytes: int  # the same and gradients: in memory whatever the batch
    cast_bytes: int  # copies of the parameters that autocast keeps until the backward pass
    peak_bytes: int | None  # of a step: a GPU's allocator, elsewhere tensors; None if compiled


def measure_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Any], Tensor],
    next_batch: Callable[[], Any],
    *,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[Any]],
    is_counted: bool = True,
) -> StepCost:
    """Train for a few steps; the model's weights change.

    Args:
        model: On the device, in training mode.
        optimizer: Of the model's parameters.
        loss: Computes the loss of a batch.
        next_batch: Returns a batch on the device.
        device: Where the steps are done.
        precision: Makes the context of the forward pass.
        is_counted: False where kernels are compiled, whose operations and tensors are not seen.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def step(batch: Any) -> None:
        with precision():
            value = loss(batch)
        optimizer.zero_grad()  # as Lightning does: the last gradients live through the forward pass
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    batch = next_batch()
    num_images = len(batch.names)
    flops = _flops(lambda: step(batch)) / num_images if is_counted else None
    with precision():
        kept = _kept_bytes(model, lambda: loss(batch)) / num_images
    for _ in range(NUM_WARMUP_STEPS):
        step(next_batch())
    step_s, waited_s, number = _timed(step, next_batch, device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    state = sum(map(_bytes, [*model.state_dict().values(), *tensors_in(optimizer.state_dict())]))
    peak: int | None = None
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    elif is_counted:
        peak = _live_bytes(model, optimizer, step, next_batch())
    return StepCost(
        step_s=step_s,
        data_wait_ratio=waited_s / step_s,
        num_steps=number,
        flops_per_image=flops,
        kept_bytes_per_image=kept,
        batch_size=num_images,
        state_bytes=state,
        fixed_bytes=state + sum(map(_bytes, parameters)),
        cast_bytes=_cast_bytes(parameters, precision, device),
        peak_bytes=peak,
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


def _cast_bytes(
    parameters: Sequence[Tensor],
    precision: Callable[[], AbstractContextManager[Any]],
    device: torch.device,
) -> int:
    with precision():
        if not torch.is_autocast_enabled(device.type):
            return 0
        dtype = torch.get_autocast_dtype(device.type)
    wider = [p for p in parameters if p.dtype.itemsize > dtype.itemsize]
    return sum(p.numel() * dtype.itemsize for p in wider)


def _live_bytes(
    model: nn.Module, optimizer: torch.optim.Optimizer, step: Callable[[Any], None], batch: Any
) -> int:
    """Return the most bytes of tensors that live in a step, as every step after the first."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    held = [*model.parameters(), *model.buffers(), *gradients, *tensors_in(batch)]
    live = LiveBytes([*held, *tensors_in(optimizer.state_dict())])
    del held, gradients
    with live:
        step(batch)
    return live.peak


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

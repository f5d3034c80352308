"""What a step costs besides time: operations and bytes."""

import gc
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step.variants import Prepared, Variant


def count_flops(variant: Variant, mask: Prepared) -> int:
    """Counts the operations of forward and backward pass, of matrix products and attention.

    Compiled parts are counted as they are written, before compilation.

    Args:
        variant: Its gradients are dropped.
        mask: As `Variant.prepare` gives it.
    """
    counter = FlopCounterMode(display=False)
    with torch.compiler.set_stance("force_eager"), counter:
        variant.loss(mask).backward()  # type: ignore[no-untyped-call]
    variant.optimizer.zero_grad()
    return int(counter.get_total_flops())


def kept_bytes(variant: Variant, mask: Prepared) -> int:
    """Counts the bytes that the forward pass keeps for the backward pass.

    Parameters, buffers and images, which are there anyway, do not count; tables of indices that a
    model keeps elsewhere do.

    Args:
        variant: To be run forwards.
        mask: As `Variant.prepare` gives it.
    """
    model = variant.model
    held = {_address(tensor) for tensor in (*model.parameters(), *model.buffers())}
    return saved_bytes(lambda: variant.loss(mask), without={*held, _address(variant.images)})


def saved_bytes(forward: Callable[[], Tensor], *, without: Iterable[int] = ()) -> int:
    """Counts the bytes of the storages that a call saves for its backward pass, each once."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[_address(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(sizes[address] for address in sizes.keys() - set(without))


def allocated_bytes(device: torch.device) -> int:
    """Returns what a CUDA device holds now; 0 for any other."""
    if device.type != "cuda":
        return 0
    gc.collect()
    return torch.cuda.memory_allocated(device)


def peak_bytes(variant: Variant, mask: Prepared, others: int) -> int:
    """Returns the most bytes that a CUDA device holds in a step, without those of other variants.

    Args:
        variant: One that has done a step, so that its optimiser has its state.
        mask: As `Variant.prepare` gives it.
        others: What the device held before the variant was built, the images among it.
    """
    device = variant.images.device
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    variant.step(mask)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - others + variant.images.nbytes


def memory(variant: Variant, mask: Prepared, others: int) -> int:
    """Returns the peak of a step on CUDA, and on a CPU what is kept for the backward pass."""
    if variant.images.device.type == "cuda":
        return peak_bytes(variant, mask, others)
    return kept_bytes(variant, mask)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

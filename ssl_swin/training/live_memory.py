"""How many bytes of tensors live at once in a training step, counted on any device.

A GPU's allocator tells the peak of a step that fits. To plan one that may not, tensors are counted
where they are made and freed, which a CPU can do, and the peak is carried over to other batches.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that live while it is active, each once, views of one together.

    What a kernel uses inside itself, and what an allocator rounds up, is not counted.

    Attributes:
        now: Bytes that live.
        peak: The most that have lived at once.
    """

    def __init__(self, held: Iterable[Tensor] = ()) -> None:
        """Begin to count.

        Args:
            held: Tensors that are there already; what of them is freed is taken off.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, weakref.finalize[Any, Any]] = {}
        for tensor in held:
            self._count(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and count what it has made."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._known:
            return
        size = storage.nbytes()
        self._known[address] = weakref.finalize(storage, self._free, address, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _free(self, address: int, size: int) -> None:
        del self._known[address]
        self.now -= size


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Return the tensors in nested containers, such as an optimiser's state or a batch."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)


def largest_batch(room_bytes: float, *, fixed_bytes: int, peak_bytes: int, batch_size: int) -> int:
    """Return how many images fit, if all that is not fixed grows with their number.

    Args:
        room_bytes: Memory for tensors.
        fixed_bytes: Of parameters, their copies, gradients and the optimiser, whatever the batch.
        peak_bytes: Of a step, counted.
        batch_size: Number of images in that step.
    """
    per_image = max(1.0, (peak_bytes - fixed_bytes) / batch_size)
    return max(0, int((room_bytes - fixed_bytes) / per_image))

"""Batches in shared memory, by which loading processes hand them over.

torch moves them there in a thread, where a failure loses the batch and the run waits for ever. Here
it is done where a failure can be told.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import get_worker_info

from ssl_swin.errors import UserError


class Shared:
    """Makes a batch, in a loading process in shared memory."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        """Sets the function up.

        Args:
            collate: Makes the batch.
        """
        self.collate = collate

    def __call__(self, examples: Any) -> Any:
        """Make a batch.

        Raises:
            UserError: If it does not fit into shared memory.
        """
        batch = self.collate(examples)
        if get_worker_info() is not None:
            try:
                _share(batch)
            except (RuntimeError, OSError) as error:
                raise UserError(_message(error)) from error
        return batch


def _share(part: Any) -> None:
    if isinstance(part, Tensor):
        if part.numel() and part.device.type == "cpu":
            part.share_memory_()  # type: ignore[no-untyped-call]
    elif isinstance(part, Mapping):
        for value in part.values():
            _share(value)
    elif isinstance(part, list | tuple):
        for value in part:
            _share(value)


def _message(error: Exception) -> str:
    problem = " ".join(str(error).split())[:160]
    return (
        f"a loading process cannot hand a batch over: {problem}. The shared memory (/dev/shm) is "
        "full: give a container more (docker run --shm-size=8g, or --ipc=host), or set num_workers "
        "or batch_size lower; num_workers=0 needs none"
    )

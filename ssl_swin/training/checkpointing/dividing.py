"""Writing a checkpoint in parts: every process its own, and the first what is not divided."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from ssl_swin.disk_errors import DiskError, disk_error
from ssl_swin.divided_checkpoint import DIVIDED, META, PARTS, sum_of, take_out
from ssl_swin.errors import UserError
from ssl_swin.files import fsync, temporary_folder
from ssl_swin.runs.finite import non_finite
from ssl_swin.stopping.stopped import PeerLostError
from ssl_swin.training.checkpointing.streaming import StreamingWriter
from ssl_swin.training.checkpointing.writing import forget_cached, write_verified
from ssl_swin.training.sharding import gather_objects


def bad_tensors(checkpoint: Mapping[str, Any]) -> list[str]:
    """Return the names of tensors that are not finite on any process; on all of them together.

    Args:
        checkpoint: With tensors that are divided.
    """
    rest, divided = take_out(checkpoint, DTensor)
    own = non_finite(rest)
    own += non_finite({name: tensor.to_local() for name, (_, tensor) in divided.items()})
    return sorted({name for names in gather_objects(own) for name in names})


def write_parts(
    checkpoint: Mapping[str, Any],
    path: Path,
    *,
    begin: Callable[[], Mapping[str, Any]],
    finish: Callable[[Path], None],
) -> None:
    """Write a checkpoint into a folder beside its place; all processes together.

    Args:
        checkpoint: With tensors that are divided.
        path: Name that the folder is about to get.
        begin: Called by the first process before anything is written; returns what else to write.
        finish: Called by it with the whole, verified folder, to which it gives its name.

    Raises:
        DiskError: On all processes, if the disk of one refuses or gives back something else.
        PeerLostError: If another one failed for any other reason, which that one raises.
    """
    rest, found = take_out(checkpoint, DTensor)
    tensors = {name: tensor for name, (_, tensor) in found.items()}
    is_first, further = dist.get_rank() == 0, dict[str, Any]()
    with ExitStack() as stack:

        def reserve() -> str:
            if not is_first:
                return ""
            further.update(begin())
            return str(stack.enter_context(temporary_folder(path)))

        folder = Path(_together(path, reserve)[0])
        writer = StreamingWriter(folder)
        _save(path, tensors, writer)
        sums = dict(each for each in _together(path, lambda: _verified(writer)) if each)

        def complete() -> None:
            if is_first:
                facts = {
                    name: {"path": where, "shape": list(tensor.shape), "dtype": tensor.dtype}
                    for name, (where, tensor) in found.items()
                }
                content = {**rest, **further, DIVIDED: facts, PARTS: sums}
                write_verified(content, folder / META)
                fsync(folder)
                finish(folder)

        _together(path, complete)


def _save(path: Path, tensors: dict[str, DTensor], writer: StreamingWriter) -> None:
    try:
        save(dict(tensors), storage_writer=writer)
    except CheckpointException as error:  # the same on all processes
        causes = [cause for cause, _ in error.failures.values()]
        told = next((each for each in map(disk_error, causes) if each is not None), None)
        if told is None:
            raise
        raise DiskError(f"cannot write {path}: {told.strerror}") from error


def _verified(writer: StreamingWriter) -> tuple[str, str] | None:
    """Read this process's part back, and return its name and sum; None if it has none."""
    part = writer.path_of_part
    if part is None:
        return None
    forget_cached(part)
    if sum_of(part) != writer.sum:
        raise DiskError(f"{part} does not hold what was written to it: check the disk")
    return part.name, writer.sum


def _together(path: Path, action: Callable[[], Any]) -> list[Any]:
    """Do something on every process, and fail on all of them where one fails."""
    done: Any = None
    error: Exception | None = None
    try:
        done = action()
    except Exception as raised:  # of any kind: the others must not wait for this process
        cause = None if isinstance(raised, UserError) else disk_error(raised)
        error = DiskError(f"cannot write {path}: {cause.strerror}") if cause else raised
    everything = gather_objects((done, error and _for_others(error, path)))
    if error is not None:
        raise error
    for _, problem in everything:
        if problem is not None:
            kind, message = problem
            raise kind(message)
    return [each for each, _ in everything]


def _for_others(error: Exception, path: Path) -> tuple[type[Exception], str]:
    """Return what the other processes raise, as no error can be sent with its traceback."""
    for kind in (DiskError, UserError):
        if isinstance(error, kind):
            return kind, str(error)
    return PeerLostError, (
        f"process {dist.get_rank()} could not do its part of {path}, and printed where: "
        f"{type(error).__name__}: {error}"
    )

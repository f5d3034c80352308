"""Work spread over processes, with results in the order of the jobs."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from ssl_swin.errors import UserError
from ssl_swin.stopping.workers import ignore_signals, signals_held

LOOK_S = 5.0  # between looks at whether the parent is still there
Job = TypeVar("Job")
Result = TypeVar("Result")


def ordered_map(
    work: Callable[[Job], Result], jobs: Sequence[Job], *, num_workers: int
) -> Iterator[Result]:
    """Yield `work(job)` for every job, in order; results do not depend on `num_workers`.

    Args:
        work: Sent to each process once, so it may hold a source of millions of images.
        jobs: Sent one by one.
        num_workers: Number of processes; 0 is this one.

    Raises:
        UserError: If `num_workers` is negative.
    """
    if num_workers < 0:
        raise UserError(f"the number of workers must not be negative, got {num_workers}")
    if num_workers == 0 or not jobs:
        yield from map(work, jobs)
        return
    stop = multiprocessing.Pipe(duplex=False)
    reader, writer = stop
    size = min(num_workers, len(jobs))
    pool = ProcessPoolExecutor(size, initializer=_start_worker, initargs=(work, reader))
    try:
        with signals_held():  # processes that start would print what it raises in them
            results = pool.map(_work_on, jobs)
        yield from results
    except BaseException:
        writer.send_bytes(b"stop")  # a job may take minutes, and is of no use any more
        raise
    finally:
        with signals_held():
            pool.shutdown(cancel_futures=True)
        for end in stop:
            end.close()


_work_of_this_process: list[Callable[[Any], Any]] = []


def _start_worker(work: Callable[[Any], Any], stop: Connection) -> None:
    ignore_signals()  # they are for the parent, which ends the pool
    threading.Thread(target=_exit_when_told, args=(stop,), daemon=True).start()
    torch.set_num_threads(1)
    _work_of_this_process[:] = [work]


def _exit_when_told(stop: Connection) -> None:
    """End the process when its parent ends, or says so by a message that nobody takes away."""
    parent = os.getppid()
    sentinel = getattr(multiprocessing.parent_process(), "sentinel", None)  # joblib's have none
    ends: list[Any] = [stop] if sentinel is None else [stop, sentinel]
    while not wait(ends, LOOK_S) and os.getppid() == parent:
        pass
    os._exit(1)


def _work_on(job: Any) -> Any:
    return _work_of_this_process[0](job)

"""Work spread over processes, with results in the order of the jobs."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

from ssl_swin.errors import UserError

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
    if num_workers == 0:
        yield from map(work, jobs)
        return
    pool = ProcessPoolExecutor(num_workers, initializer=_start_worker, initargs=(work,))
    try:
        yield from pool.map(_work_on, jobs)
    finally:
        pool.shutdown(cancel_futures=True)


_work_of_this_process: list[Callable[[Any], Any]] = []


def _start_worker(work: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the pool
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _work_of_this_process[:] = [work]


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_on(job: Any) -> Any:
    return _work_of_this_process[0](job)

"""What surrounds a job: its signals, and what is closed at its end however it ends."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from ssl_swin.files import remove_unfinished
from ssl_swin.stopping.watch import remove_when_ended, watching_signals

remove_when_ended(remove_unfinished)
_OPEN: list[ExitStack] = []


@contextmanager
def job_session(*, owns_process: bool) -> Iterator[None]:
    """Surround a job.

    Args:
        owns_process: Whether the process is there for jobs alone, see `SignalWatch`.

    Raises:
        RunStopped: If an earlier job of this process was told to stop.
    """
    with watching_signals(owns_process=owns_process) as watch, ExitStack() as closing:
        watch.defer(False)
        _OPEN.append(closing)
        try:
            yield
        finally:
            _OPEN.remove(closing)


def at_end_of_job(close: Callable[[], None]) -> None:
    """Have something closed when the job that runs here ends; the last one first.

    Args:
        close: Closes it.
    """
    if _OPEN:
        _OPEN[-1].callback(close)

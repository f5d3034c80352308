"""Signals leave a wish to stop.

While a run trains, `training/callbacks/stop_at_step.py` asks for it at every optimiser step; at any
other time, where there is nothing to save, the run ends at once.
"""

import multiprocessing
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from ssl_swin.stopping.stopped import TIME_LIMIT, RunStopped, is_first_by_environment

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
UNWINDING_S = 10.0  # in which a run that need not save anything has to be gone
SAME_CTRL_C_S = 0.1  # terminal and launcher may both pass one Ctrl-C on
SAME_CTRL_C_OF_TORCHRUN_S = 2.0  # it does so when it has noticed itself


class SignalWatch:
    """Takes the signals of a process while a job runs in it.

    The first one stops the job: at once with `RunStopped`, or, while that is deferred, when it is
    asked for. A second Ctrl-C does not wait.
    """

    def __init__(self, *, owns_process: bool) -> None:
        """Set the watch up; it takes the signals when it is entered.

        Args:
            owns_process: Whether the job is all that the process is for, so that a second Ctrl-C
                may end it on the spot, even where Python does not get to run.
        """
        self.owns_process = owns_process
        self.status = 0  # exit code that a signal wishes for; 0 while there was none
        self.between_steps = False  # whether what is under way may be left, and the state saved
        self._deadline: float | None = None
        self._deferred = False
        self._answer = ""
        self._process = os.getpid()
        self._before: dict[int, Any] = {}
        self._thread: _ProcessEnd | None = None
        self._last_ctrl_c = 0.0

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is threading.main_thread():  # nobody else gets signals
            for number in SIGNALS:
                before = signal.getsignal(number)
                if number == getattr(signal, "SIGHUP", None) and before is signal.SIG_IGN:
                    continue  # nohup
                self._before[number] = signal.signal(number, self._take)
            if self.owns_process:
                self._thread = _ProcessEnd(lambda: self._deferred)
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._thread.close()
        self._restore()

    def defer(self, deferred: bool, answer: str = "") -> None:
        """Say whether somebody will ask for the wish to stop, so that nothing is interrupted.

        Args:
            deferred: Whether that is so from now on.
            answer: What a Ctrl-C is answered meanwhile.

        Raises:
            RunStopped: If nobody will any more, and the wish is there.
        """
        self._deferred, self._answer = deferred, answer
        if self.status and not deferred:
            raise RunStopped(self.status)

    def disregard(self) -> None:
        """A run that ends anyway is not interrupted, and nobody asks any more."""
        self._deferred, self._answer, self.between_steps = True, "", False

    def limit_time(self, seconds: float) -> None:
        """Wish to stop after some time.

        Args:
            seconds: From now on.
        """
        self._deadline = time.monotonic() + seconds

    def asked(self) -> int:
        """Return the exit code with which to stop; 0 if nothing asks for it."""
        is_late = self._deadline is not None and time.monotonic() >= self._deadline
        return self.status or (TIME_LIMIT if is_late else 0)

    def forget_in_child(self) -> None:
        """Give a forked process its parent's former signals."""
        if self._thread is not None:
            signal.set_wakeup_fd(-1)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if number == signal.SIGINT:
            is_second = _is_another_ctrl_c(self._last_ctrl_c)
            self._last_ctrl_c = time.monotonic()
            if is_second and self._thread is None:
                raise RunStopped(128 + number)
        if self.status:
            return
        self.status = 128 + number
        if not self._deferred:
            raise RunStopped(self.status)
        if number == signal.SIGINT and self._answer:
            _tell(f"\n{self._answer}")


class _ProcessEnd:
    """Ends the process where its main thread does not get to it.

    The interpreter handles signals between two instructions of the main thread, which may be inside
    a library for minutes; it tells a file of each signal at once, and this thread reads it.
    """

    def __init__(self, is_deferred: Callable[[], bool]) -> None:
        self._is_deferred = is_deferred
        self._told, tell = socket.socketpair()
        tell.setblocking(False)
        self._tell = tell
        self._before = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        self._last_ctrl_c = 0.0
        threading.Thread(target=self._run, daemon=True, name="signals").start()

    def close(self) -> None:
        """Leave the process to itself."""
        signal.set_wakeup_fd(self._before)
        self._tell.send(b"\0")
        self._tell.close()

    def _run(self) -> None:
        deadline, status = 0.0, 0
        while True:
            wait_s = max(0.0, deadline - time.monotonic()) if deadline else None
            if not select.select([self._told], [], [], wait_s)[0]:
                end_process(status)
            number = int.from_bytes(self._told.recv(1))
            if not number:
                self._told.close()
                return
            if number == signal.SIGINT:
                if _is_another_ctrl_c(self._last_ctrl_c):
                    end_process(128 + number)
                self._last_ctrl_c = time.monotonic()
            if number in SIGNALS and not deadline and not self._is_deferred():
                deadline, status = time.monotonic() + UNWINDING_S, 128 + number


def _is_another_ctrl_c(last: float) -> bool:
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    gap_s = SAME_CTRL_C_OF_TORCHRUN_S if by_torchrun else SAME_CTRL_C_S
    return last > 0 and time.monotonic() - last > gap_s


def end_process(status: int) -> None:
    """End this process and its loading processes now, with one line.

    Args:
        status: Exit code.
    """
    if is_first_by_environment():
        reason = RunStopped(status).reason
        _tell(f"stopped at once by {reason}; what was not saved is lost")
    for child in multiprocessing.active_children():
        child.kill()
    for remove in _LEFTOVERS:
        remove()
    os._exit(status)


def _tell(line: str) -> None:
    with suppress(OSError):  # of a terminal that is closed
        os.write(2, f"{line}\n".encode())


_LEFTOVERS: list[Callable[[], None]] = []  # what must not stay behind, as temporary files
_WATCHES: list[SignalWatch] = []  # of this process; the innermost is last


def remove_when_ended(remove: Callable[[], None]) -> None:
    """Have something done before `end_process`.

    Args:
        remove: Removes what must not stay behind.
    """
    _LEFTOVERS.append(remove)


@contextmanager
def watching_signals(*, owns_process: bool) -> Iterator[SignalWatch]:
    """Watch the signals of this process, unless somebody does already.

    Args:
        owns_process: See `SignalWatch`.
    """
    if _WATCHES:
        yield _WATCHES[-1]
        return
    with SignalWatch(owns_process=owns_process) as watch:
        _WATCHES.append(watch)
        try:
            yield watch
        finally:
            _WATCHES.remove(watch)


def current_watch() -> SignalWatch:
    """Return the watch over this process; one that takes no signals if there is none."""
    return _WATCHES[-1] if _WATCHES else SignalWatch(owns_process=False)


def stop_if_asked() -> None:
    """End what is under way between two steps, such as a probe, if there is a wish to stop.

    Raises:
        RunStopped: If there is, and the state can be saved without it.
    """
    watch = current_watch()
    if watch.between_steps and (status := watch.asked()):
        stopped = RunStopped(status)
        stopped.between_steps = True
        raise stopped


def _forget_in_child() -> None:
    for watch in _WATCHES:
        watch.forget_in_child()
    _WATCHES.clear()


os.register_at_fork(after_in_child=_forget_in_child)

"""Loading processes and signals: those are for the process that they load for."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ssl_swin.stopping.watch import SIGNALS


@contextmanager
def signals_held() -> Iterator[None]:
    """Keep signals waiting in this thread, and in what it starts until that lets them in."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """Leave signals to the parent, which ends this process; only its own SIGTERM counts.

    A signal to the whole group must not take the data away from a run that is about to save.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS cannot tell who sent it
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS) - {signal.SIGTERM})
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while True:
        received = signal.sigwaitinfo([signal.SIGTERM])
        if received.si_pid == os.getppid():
            os._exit(0)

"""What a signal does to the process it is sent to, without a run."""

import os
import signal
import time

import pytest

from ssl_swin.stopping.stopped import TIME_LIMIT, RunStopped, in_words
from ssl_swin.stopping.watch import SIGNALS, current_watch, stop_if_asked, watching_signals


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)
def test_watch__stops_at_once_where_nothing_is_to_be_saved(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(RunStopped) as stopped, watching_signals(owns_process=False):
        send(number)
    assert stopped.value.code == 128 + number
    assert stopped.value.by_keyboard is (number == signal.SIGINT)
    assert signal.getsignal(number) is before


def test_watch__deferred_only_remembers_the_first_signal() -> None:
    with watching_signals(owns_process=False) as watch:
        watch.defer(True)
        assert watch.asked() == 0
        send(signal.SIGTERM)
        send(signal.SIGUSR1)
        assert watch.asked() == 128 + signal.SIGTERM
        with pytest.raises(RunStopped):
            watch.defer(False)


def test_watch__second_ctrl_c_does_not_wait() -> None:
    with pytest.raises(RunStopped) as stopped, watching_signals(owns_process=False) as watch:
        watch.defer(True)
        send(signal.SIGINT)
        time.sleep(0.15)  # two that come together are one
        send(signal.SIGINT)
    assert stopped.value.code == 130


def test_watch__time_limit() -> None:
    with watching_signals(owns_process=False) as watch:
        watch.defer(True)
        watch.limit_time(60)
        assert watch.asked() == 0
        watch.limit_time(0)
        assert watch.asked() == TIME_LIMIT == 75


def test_stop_if_asked__only_where_the_state_can_be_saved() -> None:
    with watching_signals(owns_process=False) as watch:
        watch.defer(True)
        send(signal.SIGTERM)
        stop_if_asked()
        watch.between_steps = True
        with pytest.raises(RunStopped) as stopped:
            stop_if_asked()
        assert stopped.value.between_steps
    assert current_watch().asked() == 0


def test_watch__forked_process_has_the_former_handlers() -> None:
    with watching_signals(owns_process=False) as watch:
        watch.defer(True)
        child = os.fork()
        if child == 0:
            send(signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert watch.asked() == 0


def test_in_words__without_anything_saved() -> None:
    assert in_words(RunStopped(143)) == "stopped by SIGTERM; there was nothing new to save"

"""A line while one long step is made of which nobody knows how much is done."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ssl_swin.display.pace import Clock
from ssl_swin.display.screen import REDRAWN_S, Screen
from ssl_swin.display.words import Part, duration
from ssl_swin.stopping.stopped import is_first_by_environment

AFTER_S = 2.0  # what takes less is not spoken of


@contextmanager
def waiting(
    what: str, *, after_s: float = AFTER_S, clock: Clock = time.monotonic
) -> Iterator[None]:
    """Show on stderr what is being done, and since when, while the body runs.

    A terminal shows one line, which goes at the end; a file gets one now and then, the first after
    half a minute. Of short work nothing is told.

    Args:
        what: What is done, as "uploading".
        after_s: Seconds until a terminal shows it.
        clock: Tells the time in seconds.
    """
    if not is_first_by_environment():
        yield
        return
    screen, started_s, ended = Screen(clock=clock), clock(), threading.Event()

    def tell() -> None:
        wait_s = after_s
        with suppress(OSError, ValueError):  # nobody listens any more
            while not ended.wait(wait_s):
                screen.show(lambda: [Part(what), Part(duration(clock() - started_s), keep=1)])
                wait_s = min(REDRAWN_S, after_s)

    teller = threading.Thread(target=tell, name="waiting", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        screen.clear()

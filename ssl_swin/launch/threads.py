"""Compute threads that sleep while they wait for one another, so that a busy machine stays usable.

OpenMP's threads wait for the slowest of them many times in a step, and by default they spin. Where
other work takes a core, each waits for a thread that the system has put aside, and holds the very
core that this thread needs: a tenth of the speed, or less. Threads that sleep let it run.

Imports nothing heavy, since OpenMP reads the environment once, when torch is loaded.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The policy is read by every OpenMP. GNU's, which torch has on Linux, would sleep at once, which
# costs 15 % of an idle machine's speed: a short spin first, some 50 microseconds, halves that.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
OF_A_USER = (*WAITING, "KMP_BLOCKTIME", "KMP_LIBRARY")
STAT = Path("/proc/stat")
LOOK_S = 0.2


def sleep_while_waiting() -> None:
    """Set how threads wait, unless the user has; without effect where torch is loaded already."""
    if not any(name in os.environ for name in OF_A_USER):
        os.environ.update(WAITING)


@contextmanager
def threads_for_this_machine() -> Iterator[None]:
    """Let a job of a process that may have loaded torch compute with threads that do not collapse.

    Threads that spin are as many as cores are idle now; their number is restored in the end.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        sleep_while_waiting()
    if torch is None or any(name in os.environ for name in (*OF_A_USER, "OMP_NUM_THREADS")):
        yield
        return
    before = torch.get_num_threads()
    idle = idle_cores()
    threads = before if idle is None else max(1, min(before, round(idle)))
    if threads < before:
        from ssl_swin.launch.printing import say

        say(
            f"note: other work runs on this machine, so {threads} thread{'s' * (threads > 1)} "
            f"instead of {before}; for all of them start Python with OMP_WAIT_POLICY=PASSIVE"
        )
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def idle_cores(stat: Path = STAT, look_s: float = LOOK_S) -> float | None:
    """Return how many of the cores that this process may use do nothing; None where unknown.

    Args:
        stat: The system's counters of what cores do.
        look_s: Seconds between the two looks at them; this process sleeps meanwhile.
    """
    try:
        before = _ticks(stat)
        time.sleep(look_s)
        after = _ticks(stat)
    except (OSError, ValueError, AttributeError):
        return None
    shares = [
        (after[core][0] - before[core][0]) / max(1, after[core][1] - before[core][1])
        for core in before.keys() & after.keys()
    ]
    return sum(shares) if shares else None


def _ticks(stat: Path) -> dict[str, tuple[int, int]]:
    """Return idle and all ticks of each core that this process may use."""
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = {}
    for line in stat.read_text().splitlines():
        name, *numbers = line.split()
        if name in mine:
            counts = [int(number) for number in numbers[:8]]
            ticks[name] = (counts[3] + counts[4], sum(counts))  # idle, waiting for a disk
    return ticks

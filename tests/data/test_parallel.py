"""Work spread over processes, started from whatever kind of process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_swin.data.parallel import ordered_map

ROOT = Path(__file__).parents[2]


def test_ordered_map__keeps_the_order_and_uses_other_processes() -> None:
    assert list(ordered_map(abs, [-3, 2, -1], num_workers=2)) == [3, 2, 1]
    assert os.getpid() not in ordered_map(_process, range(4), num_workers=2)


@pytest.mark.slow
def test_ordered_map__in_a_process_of_joblib() -> None:
    """As a sweep with that launcher has; such a parent cannot be waited for."""
    pytest.importorskip("joblib")
    script = """
from joblib import Parallel, delayed
from ssl_swin.data.parallel import ordered_map

def total(start):
    return sum(ordered_map(abs, range(-start, 0), num_workers=2))

if __name__ == "__main__":
    print(Parallel(n_jobs=2)(delayed(total)(start) for start in (3, 4)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "[6, 10]\n"
    assert done.stderr == ""


def _process(_: int) -> int:
    return os.getpid()

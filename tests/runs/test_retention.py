import itertools

import pytest

from ssl_swin.runs.catalogue import Entry
from ssl_swin.runs.retention import Retention, previous_name

HOUR_S = 3600.0


def entry(hour: float) -> Entry:
    return Entry(previous_name("last.ckpt", int(hour)), int(hour), hour * HOUR_S, True, 1, "")


def left_after(retention: Retention, num_hours: int) -> list[list[int]]:
    """The previous states that are kept at each hour, of a run that saves every hour."""
    kept: list[Entry] = []
    history = []
    for hour in range(num_hours):
        gone = retention.superseded(kept, hour * HOUR_S)
        kept = [each for each in kept if each not in gone]
        history.append(sorted(each.step for each in kept))
        kept.append(entry(hour))  # the state that is current now, and previous at the next hour
    return history


def test_superseded__by_count():
    assert left_after(Retention(2, None), 6) == [[], [0], [0, 1], [1, 2], [2, 3], [3, 4]]


def test_superseded__one_is_always_older_than_a_day_once_the_run_is():
    history = left_after(Retention(1, 24), 200)
    for hour, kept in itertools.islice(enumerate(history), 24, None):
        assert any(hour - step >= 24 for step in kept), (hour, kept)
        assert len(kept) <= 3
        assert hour - 1 in kept
    assert max(hour - min(kept) for hour, kept in enumerate(history) if kept) < 2 * 24 + 2


@pytest.mark.parametrize(("name", "expected"), [("last.ckpt", "last_0000012.ckpt")])
def test_previous_name(name, expected):
    assert previous_name(name, 12) == expected

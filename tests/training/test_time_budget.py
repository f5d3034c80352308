import pytest

from ssl_swin.training.time_budget import TimeBudget


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("ssl_swin.training.time_budget.time.perf_counter", lambda: self.now)

    def spend(self, budget: TimeBudget, seconds: float) -> None:
        with budget.spending():
            self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_allows__the_next_one_only_when_both_fit(clock):
    """Of 4 s each, a tenth of the time: two of them need 80 s."""
    budget = TimeBudget(0.1)
    assert budget.allows
    clock.spend(budget, 4)
    clock.now += 71.9  # 75.9 s, and 4 s of the next one
    assert not budget.allows
    clock.now += 0.2
    assert budget.allows


@pytest.mark.parametrize("cost_s", [0.5, 7.0])
def test_allows__keeps_the_share_of_a_long_run(clock, cost_s):
    """A probe is asked for after every second; the share is never exceeded after the first."""
    budget = TimeBudget(0.05)
    clock.spend(budget, cost_s)
    number = 1
    for _ in range(2000):
        clock.now += 1
        if budget.allows:
            clock.spend(budget, cost_s)
            number += 1
            assert budget.spent_s <= 0.05 * budget.elapsed_s + 1e-9
    assert number == int(0.05 * budget.elapsed_s / cost_s)  # and it is used up


def test_state__goes_on_counting_but_not_while_nothing_ran(clock):
    budget = TimeBudget(0.1)
    clock.spend(budget, 4)
    clock.now += 36
    state = budget.state_dict()
    clock.now += 10_000
    later = TimeBudget(0.1)
    later.load_state_dict(state)
    clock.now += 1
    assert (later.elapsed_s, later.spent_s, later.last_s) == (41, 4, 4)


def test_spending__counts_what_failed(clock):
    budget = TimeBudget(0.1)
    with pytest.raises(ZeroDivisionError), budget.spending():
        clock.now += 3
        raise ZeroDivisionError
    assert budget.spent_s == 3

"""The benchmark of waiting threads: who is asked when, and what its table says."""

from benchmarks.step.threads import measure, report


class Counting:
    """Answers with the number of the question over all processes."""

    asked: list[str]

    def __init__(self, name: str, asked: list[str]) -> None:
        self.name = name
        self.asked = asked

    def seconds(self, num_steps: int) -> float:
        self.asked.append(self.name)
        return float(num_steps * len(self.asked))


def test_measure__asks_in_turn_and_divides_by_the_steps() -> None:
    asked: list[str] = []
    steppers = {name: Counting(name, asked) for name in "ab"}
    assert measure(steppers, rounds=2, num_steps=4) == {"a": [1.0, 3.0], "b": [2.0, 4.0]}  # type: ignore[arg-type]
    assert asked == ["a", "b", "a", "b"]


def test_report__ratios_are_of_the_same_round() -> None:
    seconds = {"as torch is": [8.0, 2.0, 3.0], "passive": [2.0, 1.0, 1.0]}
    *_, last = report({2: seconds}, {"as torch is": 2, "passive": 2}).splitlines()
    cells = [cell.strip() for cell in last.strip("|").split("|")]
    assert cells == ["passive", "2", "2", "1.00", "1.00-2.00", "3.00"]  # of 4, 2 and 3

"""The benchmark of the server: what it sums up, and a whole run in small."""

import re

import pytest

from benchmarks.serve import Answer, Round, main, report, summary


def test_summary__by_hand() -> None:
    answers = [Answer(200, seconds / 1000) for seconds in (10, 20, 30)] + [Answer(503, 9.0)]
    found = summary(answers, wall_s=2.0, images=12.0, batches=3.0)
    assert found == Round(1.5, 20.0, pytest.approx(29.8), 4.0, 1)


def test_report__medians_over_rounds_and_all_failures() -> None:
    rounds = [Round(9, 10, 20, 2, 1), Round(11, 12, 50, 3, 0), Round(10, 11, 30, 9, 2)]
    *_, last = report({"with batching": {16: rounds}}).splitlines()
    cells = [cell.strip() for cell in last.strip("|").split("|")]
    assert cells == ["with batching", "16", "10.0", "11", "30", "3.0", "3"]


@pytest.mark.slow
def test_main__of_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--clients", "4", "--seconds", "1.5", "--rounds", "1", "--max-wait-ms", "50"])
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| (with batching|without) +\|(.*)\|$", printed, re.MULTILINE)
    found = {kind: [float(cell) for cell in cells.split("|")] for kind, cells in rows}
    assert found.keys() == {"with batching", "without"}
    for clients, requests_per_s, p50_ms, p99_ms, images_per_batch, failed in found.values():
        assert (clients, failed) == (4, 0)
        assert requests_per_s > 0 and 0 < p50_ms <= p99_ms and images_per_batch >= 1
    assert found["with batching"][4] > found["without"][4] == 1

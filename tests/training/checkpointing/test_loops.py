from typing import Any

import pytest

from ssl_swin.training.checkpointing.loops import is_unfinished, settled

Counts = tuple[int, int, int, int]  # ready, started, processed, completed


def progress(total: Counts, current: Counts, is_last: bool = False) -> dict[str, Any]:
    names = ("ready", "started", "processed", "completed")
    both = (dict(zip(names, counts, strict=True)) for counts in (total, current))
    return {**dict(zip(("total", "current"), both, strict=True)), "is_last_batch": is_last}


def state(epochs: Counts, batches: Counts, total: int, validation: Counts = (0, 0, 0, 0),
          *, is_measured: bool = False) -> dict[str, Any]:  # fmt: skip
    before = total - batches[2]
    summed: Counts = tuple(before + count for count in batches)  # type: ignore[assignment]
    return {
        "epoch_progress": progress(epochs, epochs),
        "epoch_loop.batch_progress": progress(summed, batches),
        "epoch_loop.val_loop.batch_progress": progress(validation, validation, is_measured),
    }


SAVED = {  # in epochs of 6 batches
    "batch 2 of the first epoch": state((1, 1, 0, 0), (2, 2, 2, 1), 2),
    "an epoch's last batch": state((1, 1, 0, 0), (6, 6, 6, 5), 6),
    "in validation": state((1, 1, 0, 0), (6, 6, 6, 6), 6, (2, 2, 2, 1)),
    "after validation": state((1, 1, 0, 0), (6, 6, 6, 6), 6, (3, 3, 3, 3), is_measured=True),
    "an epoch's end": state((1, 1, 1, 0), (6, 6, 6, 6), 6, (3, 3, 3, 3), is_measured=True),
    "by 0.1.0, continued from an epoch's last batch": state((1, 1, 1, 1), (2, 2, 2, 1), 8),
}


@pytest.mark.parametrize(
    ("saved", "epochs", "batches", "unfinished"),
    [
        ("batch 2 of the first epoch", (1, 1, 0, 0), (2, 2, 2, 2), True),
        ("an epoch's last batch", (1, 1, 0, 0), (6, 6, 6, 6), True),
        ("in validation", (1, 1, 0, 0), (6, 6, 6, 6), True),
        ("after validation", (1, 1, 0, 0), (6, 6, 6, 6), False),
        ("an epoch's end", (1, 1, 1, 1), (6, 6, 6, 6), False),
        ("by 0.1.0, continued from an epoch's last batch", (2, 2, 1, 1), (2, 2, 2, 2), True),
    ],
)
def test_settled__counters_say_what_had_happened(saved, epochs, batches, unfinished):
    before = SAVED[saved]
    after = settled(before)
    total = before["epoch_loop.batch_progress"]["total"]["processed"]
    expected = state(epochs, batches, total)
    for name in ("epoch_progress", "epoch_loop.batch_progress"):
        assert after[name] == expected[name], name
    assert is_unfinished(before) is unfinished
    assert settled(after) == after


def test_settled__leaves_the_state_as_it_is():
    before = SAVED["an epoch's last batch"]
    text = repr(before)
    settled(before)
    assert repr(before) == text

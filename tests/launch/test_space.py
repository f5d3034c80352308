"""Room for checkpoints: their size, their number, and the refusal."""

from pathlib import Path

import pytest
from torch import nn

from ssl_swin.errors import UserError
from ssl_swin.launch import space
from ssl_swin.launch.space import (
    BYTES_PER_TENSOR,
    check_space,
    checkpoint_bytes,
    in_bytes,
    num_kept,
)
from ssl_swin.optim.schedules import RunLength
from ssl_swin.training.checkpointing.schedule import StepCheckpoint

LENGTH = RunLength(steps_per_epoch=10, num_epochs=25, global_batch_size=8)


def checkpoint(**options: object) -> StepCheckpoint:
    return StepCheckpoint(filename="a", dirpath="x", **options)  # type: ignore[arg-type]


def test_checkpoint_bytes__weights_moments_average_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))  # 12 weights; 4 floats, 1 int64
    four, three = 4 * BYTES_PER_TENSOR, 3 * BYTES_PER_TENSOR  # trained tensors; buffers
    assert checkpoint_bytes(model, has_average=False) == 3 * (48 + four) + 24 + three
    assert checkpoint_bytes(model, has_average=True) == 4 * (48 + four) + 24 + three


def test_num_kept__milestones_add_up_and_the_last_replaces_itself() -> None:
    last, milestones = checkpoint(every_n_epochs=1), checkpoint(every_n_epochs=4, save_top_k=-1)
    assert num_kept([last, milestones], LENGTH, -1) == 1 + 6
    assert num_kept([last, milestones], LENGTH, 85) == 1 + 2  # nine epochs
    assert num_kept([checkpoint(every_n_train_steps=100, save_top_k=-1)], LENGTH, -1) == 2
    assert num_kept([checkpoint(every_n_epochs=100, save_top_k=-1)], LENGTH, -1) == 0


@pytest.mark.parametrize(
    ("options", "hours", "number"),
    [
        ({}, 99, 1),
        ({"num_previous": 3}, 99, 4),
        ({"num_previous": 1, "previous_min_age_h": 24}, 1, 3),
        ({"num_previous": 1, "previous_min_age_h": 24}, 25, 4),
        ({"num_previous": 99, "previous_min_age_h": 24}, 25, 25),  # all that were written
    ],
)
def test_num_kept__states_before_by_count_and_by_age(
    options: dict[str, int], hours: int, number: int
) -> None:
    last = checkpoint(every_n_epochs=1, **options)
    assert num_kept([last], LENGTH, -1, 3600 * hours) == number


def test_check_space__counts_one_being_written_and_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "free_bytes", lambda folder: 399)
    with pytest.raises(UserError, match=r"3 checkpoints of 100 B .* need 400 B, .* has 399 B"):
        check_space(tmp_path, number=3, size_bytes=100)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").write_bytes(b"1")
    check_space(tmp_path, number=3, size_bytes=100)


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (3e12, "3 TB")]
)
def test_in_bytes(count: float, text: str) -> None:
    assert in_bytes(count) == text

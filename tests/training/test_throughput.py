from types import SimpleNamespace
from typing import Any

import pytest

from ssl_swin.training import batch_clock
from ssl_swin.training.callbacks.throughput import Throughput


class Run:
    """Plays Lightning's hooks to a callback by the clock; keeps what it logs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **trainer: int) -> None:
        self.now_s = 5000.0
        monkeypatch.setattr(batch_clock, "time", SimpleNamespace(perf_counter=lambda: self.now_s))
        self.trainer = SimpleNamespace(global_step=0, **trainer)
        self.logged: list[dict[str, float]] = []
        self.module = SimpleNamespace(log=lambda name, value: self.logged[-1].update({name: value}))
        self.callback: Any = Throughput()
        self.callback.on_train_start(self.trainer, self.module)

    def start_epoch(self) -> None:
        self.callback.on_train_epoch_start(self.trainer, self.module)

    def batch(self, wait_s: float, work_s: float, steps: bool = True) -> dict[str, float]:
        """Gives what was logged at the end of a batch of 8 images."""
        self.logged.append({})
        batch = SimpleNamespace(names=8 * ["x"])
        self.now_s += wait_s
        self.callback.on_train_batch_start(self.trainer, self.module, batch, 0)
        self.now_s += work_s
        self.trainer.global_step += steps
        self.callback.on_train_batch_end(self.trainer, self.module, None, batch, 0)
        return self.logged[-1]


def test_throughput__window_of_two_steps_on_four_devices(monkeypatch):
    run = Run(monkeypatch, log_every_n_steps=2, world_size=4)
    run.start_epoch()
    assert run.batch(wait_s=1.0, work_s=3.0) == {}
    first = run.batch(wait_s=0.5, work_s=3.5)  # 2 * 8 * 4 images in 8 s
    assert first == {"perf/samples_per_s": 8.0, "perf/data_wait_frac": 1.5 / 8}
    assert run.batch(wait_s=0.0, work_s=1.0) == {}
    second = run.batch(wait_s=3.0, work_s=0.0)
    assert second == {"perf/samples_per_s": 16.0, "perf/data_wait_frac": 0.75}


def test_throughput__window_over_epochs_leaves_out_what_lies_between(monkeypatch):
    run = Run(monkeypatch, log_every_n_steps=3, world_size=1)
    run.start_epoch()
    run.batch(wait_s=1.0, work_s=1.0)
    run.now_s += 1000.0  # validation, checkpoints
    run.start_epoch()
    run.batch(wait_s=1.0, work_s=1.0)
    run.now_s += 500.0
    run.callback.on_validation_end(run.trainer, run.module)
    logged = run.batch(wait_s=2.0, work_s=2.0)
    assert logged == {"perf/samples_per_s": 24 / 8, "perf/data_wait_frac": 0.5}


def test_throughput__accumulated_batches_belong_to_their_step(monkeypatch):
    run = Run(monkeypatch, log_every_n_steps=2, world_size=1)
    run.start_epoch()
    logs = [run.batch(wait_s=1.0, work_s=1.0, steps=steps) for steps in [False, True] * 4]
    expected = {"perf/samples_per_s": 4.0, "perf/data_wait_frac": 0.5}
    assert logs == [{}, {}, {}, expected] * 2


def test_throughput__off_where_nothing_is_logged(monkeypatch):
    run = Run(monkeypatch, log_every_n_steps=0, world_size=1)
    assert [run.batch(wait_s=1.0, work_s=1.0) for _ in range(3)] == [{}, {}, {}]


def test_throughput__reaches_the_logger_at_every_logged_step(pretrain, logged):
    trainer = pretrain(Throughput())
    steps = list(logged(trainer, "train/loss"))
    assert steps == [2, 4, 6]
    assert list(logged(trainer, "perf/samples_per_s")) == steps
    assert all(0 < wait < 1 for wait in logged(trainer, "perf/data_wait_frac").values())


def test_throughput__leaves_out_what_is_done_aside(monkeypatch):
    run = Run(monkeypatch, log_every_n_steps=2, world_size=1)
    run.start_epoch()
    run.batch(wait_s=1.0, work_s=1.0)
    with batch_clock.aside():  # a probe after the step
        run.now_s += 700.0
    logged = run.batch(wait_s=1.0, work_s=1.0)
    assert logged == {"perf/samples_per_s": 4.0, "perf/data_wait_frac": 0.5}

"""The share of a run that is no training, from clocks to arithmetic; and what `--help` imports."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.job.clock import HookClock
from benchmarks.job.shares import (
    Length,
    data_wait_ratio,
    num_events,
    num_workers,
    phases,
    settings_by_class,
    shares,
    whole_length,
)

ROOT = Path(__file__).parents[2]
TRAINER = {
    "max_epochs": 8,
    "max_steps": -1,
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 2,
}


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({}, Length(8, 600, 600, 4)),
        ({"accumulate_grad_batches": 2}, Length(8, 304, 600, 4)),  # the 75th batch steps too
        ({"max_steps": 200}, Length(3, 225, 225, 1)),
        ({"max_steps": 9000}, Length(8, 600, 600, 4)),
        ({"max_steps": 750, "max_epochs": -1}, Length(10, 750, 750, 5)),
    ],
)
def test_whole_length(changes: dict[str, int], length: Length) -> None:
    assert whole_length(TRAINER | changes, batches_per_epoch=75) == length


@pytest.mark.parametrize(
    ("name", "settings", "events"),
    [
        ("Reconstructions", [{"every_n_steps": 100}], 7),  # 0, 100, ... 600, which is the end
        ("Reconstructions", [{"every_n_steps": 500}], 3),  # 0, 500, and the end
        ("Probes", [{"every_n_steps": 300}], 3),
        ("StepCheckpoint", [{"every_n_epochs": 1}, {"every_n_epochs": 100}], 8),
        ("StepCheckpoint", [{"every_n_epochs": None, "every_n_train_steps": 250}], 2),
        ("Throughput", [{}], 600),
        ("MetricsCsv", [], 600),
    ],
)
def test_num_events(name: str, settings: list[dict[str, int]], events: int) -> None:
    assert num_events(name, settings, Length(8, 600, 600, 4)) == events


def test_shares__whole_run_by_hand() -> None:
    callbacks = {
        "last": {"_target_": "a.StepCheckpoint", "every_n_epochs": 1},
        "pictures": {"_target_": "a.Reconstructions", "every_n_steps": 100},
        "probe": {"_target_": "a.Probes", "every_n_steps": 300},
        "throughput": {"_target_": "a.Throughput"},
        "batch_digest": False,
    }
    report = {
        "num_epochs": 2,
        "num_steps": 100,
        "batches_per_epoch": 75,
        "num_validations": 1,
        "validation_s": 3.0,
        "batch_s": [0.5, 0.5, 9.0],  # a picture was drawn in one
        "hook_s": {"StepCheckpoint": 1.0, "Reconstructions": 4.0, "Probes": 6, "Throughput": 0.1},
    }
    whole_s, found = shares(report, {"trainer": TRAINER, "callbacks": callbacks})
    # 600 batches of 0.5 s, 4 validations of 3 s, 8 checkpoints of 0.5 s, 7 pictures of 2 s,
    # 3 probes of 3 s; 0.6 s of throughput are in the batches.
    assert whole_s == 300 + 12 + 4 + 14 + 9
    assert [(share.name, share.whole_s) for share in found] == [
        ("Reconstructions", 14),
        ("validation", 12),
        ("Probes", 9),
        ("StepCheckpoint", 4),
        ("Throughput", pytest.approx(0.6)),
    ]
    assert found[0].ratio == 14 / 339
    assert sum(share.events for share in found) == 1 + 2 + 2 + 2 + 100


def test_shares__what_never_happened_has_no_cost() -> None:
    report = {
        "num_epochs": 1,
        "num_steps": 75,
        "batches_per_epoch": 75,
        "num_validations": 0,
        "validation_s": 0.0,
        "batch_s": [1.0],
        "hook_s": {},
    }
    whole_s, [validation] = shares(report, {"trainer": TRAINER, "callbacks": {}})
    assert whole_s == 600
    assert validation.event_s is None and validation.whole_events == 4


def test_settings_by_class__gathers_those_of_one_class() -> None:
    first, second = {"_target_": "a.b.C", "n": 1}, {"_target_": "a.C", "n": 2}
    assert settings_by_class({"x": first, "y": second, "z": False}) == {"C": [first, second]}


def test_data_wait_ratio__weighs_windows_by_their_time() -> None:
    rows = [
        {"perf/samples_per_s": "100", "perf/data_wait_frac": "0.9"},  # the workers start
        {"perf/samples_per_s": "", "perf/data_wait_frac": ""},
        {"perf/samples_per_s": "100", "perf/data_wait_frac": "0.0"},
        {"perf/samples_per_s": "50", "perf/data_wait_frac": "0.3"},  # twice as long
    ]
    assert data_wait_ratio(rows) == pytest.approx(0.2)
    assert math.isnan(data_wait_ratio(rows[:2]))


def test_num_workers__rounds_up() -> None:
    assert [num_workers(rate, 1208) for rate in (1, 1208, 1209, 4000)] == [1, 1, 2, 4]


def test_phases__medians_of_differences() -> None:
    moments = [{"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 9.0}, {"a": 6.0, "b": 9.0}]
    assert phases(moments) == {"a": 2.0, "b": 3.0}


def test_hook_clock__inner_calls_are_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Inner:
        def save(self) -> str:
            nonlocal now
            now += 6.0
            return "saved"

    class Outer:
        def on_end(self) -> str:
            nonlocal now
            now += 2.0
            return inner.save()

    monkeypatch.setattr("benchmarks.job.clock.perf_counter", lambda: now)
    inner, outer, clock = Inner(), Outer(), HookClock()
    clock.watch(inner, ["save"])
    clock.watch(outer, ["on_end"])
    assert [outer.on_end(), inner.save()] == ["saved", "saved"]
    assert clock.seconds == {"Inner": 12.0, "Outer": 2.0}


@pytest.mark.slow
@pytest.mark.parametrize("script", ["pretrain", "finetune", "linear_probe"])
def test_help__imports_neither_torch_nor_lightning(script: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}.py', '--help']\n"
        f"runpy.run_path({str(ROOT / f'{script}.py')!r}, run_name='__main__')\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'lightning', 'timm', 'wandb')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Groups (group=option)" in done.stdout

"""Whole runs whose Weights & Biases fails: they end well, with each step once in metrics.csv."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from chaos import STEPS_PER_EPOCH, TINY
from disks import fill, small_disk
from faults import AtBatch
from launched import LIMIT_S, output, start
from trouble_faults import Environment

pytestmark = pytest.mark.slow
SETTINGS = (*TINY, "num_workers=0", "name=k", "logger=wandb")
DISK_BYTES = 400_000
NO_SERVER = {
    "WANDB_MODE": "online",
    "WANDB_API_KEY": 40 * "a",
    "WANDB_BASE_URL": "http://127.0.0.1:9",
    "WANDB_ERROR_REPORTING": "false",
}


def run(place: Path, fault: Callable[[], None], *more: str) -> str:
    (process,) = start((*SETTINGS, *more), place, 1, fault=fault)
    process.join(LIMIT_S)
    said = output(place, 0)
    assert process.exitcode == 0, said
    assert 'File "' not in said
    with (place / "runs/pretrain/k/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(3 * STEPS_PER_EPOCH + 1))
    assert all(row["train/loss"] for row in rows[1:])
    return said


def test_key_and_no_server(tmp_path: Path) -> None:
    said = run(tmp_path, Environment(NO_SERVER), "logger.settings.init_timeout=2")
    told = [line for line in said.splitlines() if "cannot be used" in line]
    assert len(told) == 1
    assert "logging offline under the same id" in told[0]
    assert list(tmp_path.glob("runs/pretrain/k/wandb/offline-run-*/run-*.wandb"))


def test_folder_is_full_from_the_middle_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", DISK_BYTES) as disk:
        said = run(tmp_path, AtBatch(partial(fill, disk), 10), f"logger.save_dir={disk}")
    told = [line for line in said.splitlines() if line.startswith("WandbLogger failed: ")]
    assert len(told) == 1
    assert "No space left on device" in told[0] and "; training goes on without it" in told[0]
    assert "failed beside the training: WandbLogger; see " in said

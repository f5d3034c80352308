"""Real processes that get real signals: the state is saved, and the exit code says so."""

import csv
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from launched import LIMIT_S, finish, output, start

from ssl_swin.safe_pickle import load_checkpoint

pytestmark = pytest.mark.slow
# 16 batches an epoch, 8 steps; validations of two batches after 5, 10 and 15 batches, so in the
# middle of an accumulation too, or after each epoch.
TINY = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "model.drop_path_rate=0.3",
    "data.prepare.num_train=64",
    "data.prepare.num_val=8",
    "data.order.block=4",
    "data.order.pool=64",
    "batch_size=4",
    "num_workers=1",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.check_val_every_n_epoch=1",
    "trainer.accumulate_grad_batches=2",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "callbacks.probes.max_time_ratio=1",
    "callbacks.probes.every_n_steps=1",
    "callbacks.probes.num_train_images=8",
)
WITHIN = ("+trainer.val_check_interval=5",)


def sending(name: str, moment: str, number: int, **more: int) -> str:
    settings = {"name": name, "moment": moment, "number": number, **more}
    listed = ",".join(f"{key}:{value}" for key, value in settings.items())
    return f"+callbacks.signal={{_target_:signalling.SendSignal,{listed}}}"


def run_folder(folder: Path) -> Path:
    return folder / "runs/pretrain/swin_nano_demo"


def state(folder: Path) -> dict[str, Any]:
    return load_checkpoint(run_folder(folder) / "checkpoints/last.ckpt")


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return bool(found.equal(expected))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            equal(found[key], value) for key, value in expected.items()
        )
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(equal, found, expected))
    return bool(found == expected)


def metrics(folder: Path) -> list[dict[str, str]]:
    """All that does not depend on the time it took."""
    with (run_folder(folder) / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]


def check_same(found: Path, expected: Path) -> None:
    ours, theirs = state(found), state(expected)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert equal(ours[part], theirs[part]), part
    assert metrics(found) == metrics(expected)


@pytest.mark.parametrize(
    ("within", "moments"),
    [
        (
            (),
            [
                ("SIGTERM", "step", 3),
                ("SIGUSR1", "batch", 8),  # the first of two that are accumulated
                ("SIGINT", "validation", 1),  # of the end of the epoch
                ("SIGTERM", "epoch_end", 0),  # before the probe
                ("SIGHUP", "step", 16),  # the last of the run
            ],
        ),
        (
            WITHIN,
            [
                ("SIGUSR2", "validation", 1),  # inside an accumulation
                ("SIGTERM", "validation", 3),
            ],
        ),
    ],
    ids=["epochs", "within"],
)
def test_pretrain__stopped_at_any_moment_ends_the_same(
    tmp_path: Path, within: tuple[str, ...], moments: list[tuple[str, str, int]]
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    finish((*TINY, *within), whole, 1)
    for name, moment, number in moments:
        status = 128 + getattr(signal, name)
        overrides = (*TINY, *within, sending(name, moment, number))
        finish(overrides, stopped, 1, status=status)
        said = output(stopped, 0)
        assert 'File "' not in said
        last = said.splitlines()[-1]
        assert "saved in runs/pretrain/swin_nano_demo/checkpoints/last.ckpt; to go on: " in last
    finish((*TINY, *within), stopped, 1)
    check_same(stopped, whole)


def test_pretrain__a_signal_to_one_of_two_processes_stops_both(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    two = (*TINY, "batch_size=2")
    finish(two, whole, 2)
    for moment, number, rank in (("step", 3, 1), ("validation", 1, 0)):
        processes = start((*two, sending("SIGTERM", moment, number, rank=rank)), stopped, 2)
        for process in processes:
            process.join(LIMIT_S)
        assert [process.exitcode for process in processes] == [128 + signal.SIGTERM] * 2
        assert "saved in" in output(stopped, 0)
        assert 'File "' not in (printed := output(stopped, 1))
        assert "stopped by" not in printed  # once, by the first process
    finish(two, stopped, 2)
    check_same(stopped, whole)

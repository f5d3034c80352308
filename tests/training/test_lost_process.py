"""A process that is gone, or hangs, ends the others in time and with one message."""

import os
import signal
import time
from pathlib import Path

import pytest
from launched import LIMIT_S, output, start

pytestmark = pytest.mark.slow
TIMEOUT_S = 6
SETTINGS = (
    "model.embed_dim=8",
    "model.depths=[1,1,1]",
    "model.num_heads=[1,1,2]",
    "data.prepare.num_train=64",
    "data.prepare.num_val=8",
    "batch_size=8",
    "num_workers=0",
    "logger=csv",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=500",
    f"trainer.timeout_s={TIMEOUT_S}",
    "trainer.enable_progress_bar=false",
    "callbacks.probes.max_time_ratio=1",
    "callbacks.probes.every_n_steps=1",  # most of the time is the probe's
    "callbacks.batch_digest.enabled=true",
)
FAILURE = 1


def wait_for_steps(folder: Path, number: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not any(
        len(file.read_text().splitlines()) >= number
        for file in folder.glob("runs/pretrain/*/batch_digest/rank0.jsonl")
    ):
        assert time.monotonic() < deadline, output(folder, 0)
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("strategy", "how", "within_s"),
    [
        ("ddp", signal.SIGKILL, 5),
        ("ddp", signal.SIGSTOP, TIMEOUT_S + 10),
        ("fsdp", signal.SIGKILL, 5),
    ],
)
def test_lost_process__ends_the_other(
    tmp_path: Path, strategy: str, how: signal.Signals, within_s: int
) -> None:
    first, second = start(SETTINGS, tmp_path, 2, strategy=strategy)
    try:
        wait_for_steps(tmp_path, 6)
        os.kill(second.pid, how)
        first.join(within_s)
        assert first.exitcode == FAILURE, output(tmp_path, 0)
        assert "process 0 of 2 lost another one" in output(tmp_path, 0).splitlines()[-1]
        assert 'File "' not in output(tmp_path, 0)
    finally:
        for process in (first, second):
            process.kill()
            process.join()
